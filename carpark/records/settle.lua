-- Says of summaries what became of them at one sink, and counts each once for each thing that became of it.
--
-- KEYS  carpark:undelivered, carpark:counts
-- ARGV  sink, outcome (delivered, retried or failed), then the keys (kind/id of the event that finished the stay)
-- Returns how many it counted.

local STATE = {retried = 'queued ', failed = 'dead '}
local sink, outcome = ARGV[1], ARGV[2]
local counted = 0
for i = 3, #ARGV do
  local field = sink .. '/' .. ARGV[i]
  local value = redis.call('HGET', KEYS[1], field)
  if value then
    local state = STATE[outcome]
    if not state or string.sub(value, 1, #state) ~= state then
      -- Counted first: it is refused where Redis takes no writes now, and then nothing has changed.
      redis.call('HINCRBY', KEYS[2], 'summaries/' .. sink .. '/' .. outcome, 1)
      if state then
        redis.call('HSET', KEYS[1], field, (string.gsub(value, '^%a+ ', state, 1)))
      else
        redis.call('HDEL', KEYS[1], field)
      end
      counted = counted + 1
    end
  end
end
return counted
