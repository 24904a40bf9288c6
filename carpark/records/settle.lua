-- Says of summaries what became of them at one sink, and counts each once.
--
-- KEYS  carpark:undelivered, carpark:counts
-- ARGV  sink, outcome (delivered, retried or failed), then the keys (kind/id of the event that finished the stay)
-- Returns how many were still open at this sink.

local sink, outcome = ARGV[1], ARGV[2]
local known = 0
for i = 3, #ARGV do
  local field = sink .. '/' .. ARGV[i]
  local value = redis.call('HGET', KEYS[1], field)
  if value then
    known = known + 1
    if outcome == 'delivered' then
      redis.call('HDEL', KEYS[1], field)
    else
      local state = outcome == 'retried' and 'queued ' or 'dead '
      redis.call('HSET', KEYS[1], field, (string.gsub(value, '^%a+ ', state, 1)))
    end
    redis.call('HINCRBY', KEYS[2], 'summaries/' .. sink .. '/' .. outcome, 1)
  end
end
return known
