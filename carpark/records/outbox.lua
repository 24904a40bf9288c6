-- The outbox of one sink: stays that it has not taken yet. A relay takes a batch, offers it, and settles it; one batch is
-- in hand at a time, on all machines, and who has it holds a lease.
--
-- KEYS  carpark:outbox:<sink>  list: stays that wait, in their order
--       carpark:batch:<sink>   list: the members of the batch that is in hand, or waits to be offered again
--       carpark:alone:<sink>   sorted set: "attempts stay" of those that wait alone, by the time of the next attempt
--       carpark:dead:<sink>    hash: id to stay of those that were given up
--       carpark:relay:<sink>   hash: what is known of batch and sink, below
--       carpark:counts
-- ARGV  operation, now (s; empty for this server's clock), the sink's name, then what the operation takes; "rights" does
--       nothing, and returns what this user may do, and may not
--
-- Of batch and sink: number, attempt (of this batch), alone (set if its one member waited alone), leased_until; failures
-- (in a row), due (not before this time: the circuit breaker is open), failing_since, error (what it said last), asked
-- (when a relay last asked for work; while it has some, when its lease ends).

local WAITING, BATCH, ALONE, DEAD, RELAY, COUNTS = unpack(KEYS)

need('TIME')
need('HINCRBY', COUNTS, 'x', 0)
for _, key in ipairs({DEAD, RELAY}) do
  need('HGET', key, 'x')
  need('HSET', key, 'x', 'x')
  need('HDEL', key, 'x')
end
need('HSETNX', RELAY, 'x', 'x')
need('HEXISTS', RELAY, 'x')
for _, key in ipairs({WAITING, BATCH}) do
  need('LRANGE', key, 0, 0)
  need('RPUSH', key, 'x')
end
need('LTRIM', WAITING, 0, 0)
need('DEL', BATCH)
need('ZADD', ALONE, 0, 'x')
need('ZREM', ALONE, 'x')
need('ZRANGE', ALONE, 0, 0)
need('ZRANGEBYSCORE', ALONE, 0, 0)
if IS_ASKED then -- what else is asked of these keys, outside of this script
  for _, key in ipairs({WAITING, BATCH}) do
    need('LLEN', key)
    need('LINDEX', key, 0)
  end
  need('ZCARD', ALONE)
  need('HLEN', DEAD)
  need('HGETALL', RELAY)
  return rights()
end
if #denied > 0 then return no_right() end

local now, sink = clock(ARGV[2]), ARGV[3]

local function number(field) return tonumber(redis.call('HGET', RELAY, field) or 0) end

local function seconds(value) return string.format('%.3f', value) end

local function count(outcome, many)
  if many > 0 then redis.call('HINCRBY', COUNTS, 'summaries/' .. sink .. '/' .. outcome, many) end
  return many
end

-- The next batch becomes the one in hand: what waited alone and is due, in turns with those that wait in their order.
local function form(most, whatever)
  local alone = redis.call('ZRANGEBYSCORE', ALONE, '-inf', whatever and '+inf' or seconds(now), 'LIMIT', 0, 1)[1]
  local waiting = redis.call('LRANGE', WAITING, 0, most - 1)
  local attempt = 0
  if alone and (#waiting == 0 or redis.call('HEXISTS', RELAY, 'alone') == 0) then
    local space = string.find(alone, ' ', 1, true)
    attempt, waiting = tonumber(string.sub(alone, 1, space - 1)), {string.sub(alone, space + 1)}
    redis.call('ZREM', ALONE, alone)
    redis.call('HSET', RELAY, 'alone', 1)
  else
    redis.call('LTRIM', WAITING, #waiting, -1)
    redis.call('HDEL', RELAY, 'alone')
  end
  if #waiting > 0 then
    redis.call('RPUSH', BATCH, unpack(waiting))
    redis.call('HINCRBY', RELAY, 'number', 1)
    redis.call('HSET', RELAY, 'attempt', attempt)
  end
  return waiting
end

-- This server's clock went back, by NTP or with another server: what was to end by it ends now.
local function set_clock_back()
  redis.call('HDEL', RELAY, 'leased_until', 'due', 'asked', 'failing_since')
  for _, member in ipairs(redis.call('ZRANGE', ALONE, 0, -1)) do redis.call('ZADD', ALONE, seconds(now), member) end
end

-- Takes a lease (s), how many summaries at most, and whether to take what is not due as well, which no relay does.
-- Returns {"batch", number, attempt, failures, whether it waited alone, stays ...}, or {"wait", s}: for so long nobody is
-- given one; negative if it is only that nothing waits now.
local function take(lease, most, whatever)
  if number('at') > now + 1 then set_clock_back() end
  redis.call('HSET', RELAY, 'at', seconds(now))
  local function ask(until_then)
    if not whatever then redis.call('HSET', RELAY, 'asked', seconds(until_then)) end
  end
  ask(now)
  local wait = math.max(number('leased_until'), whatever and 0 or number('due')) - now
  if wait > 0 then return {'wait', seconds(wait)} end
  if number('leased_until') > 0 then -- whoever had it has died, or its call hangs
    redis.call('HSET', RELAY, 'error', 'no answer in time')
    redis.call('HSETNX', RELAY, 'failing_since', seconds(now))
  end
  local members = redis.call('LRANGE', BATCH, 0, -1)
  if #members == 0 then members = form(most, whatever) end
  if #members == 0 then return {'wait', '-1'} end
  redis.call('HSET', RELAY, 'leased_until', seconds(now + lease))
  ask(now + lease)
  local attempt = redis.call('HINCRBY', RELAY, 'attempt', 1)
  return {'batch', number('number'), attempt, number('failures'), redis.call('HEXISTS', RELAY, 'alone'), unpack(members)}
end

-- Takes what became of a batch: number, attempt, delivered (ids), dead (ids), alone (id to delay in s), last (ids that
-- go to the end of the batch); error (what the sink said last, or nothing), and delay (s until the sink is tried again).
-- Of a batch that is not the one in hand nothing is believed, of an attempt that was given up only what was delivered.
-- Returns how many it counted as delivered, retried and failed. Given a lease and a number as well, it takes what is next
-- in the same step, and returns that as the fourth: what somebody recorded who was told to wait is in it.
local function settle(of)
  if number('number') ~= of.number then return {0, 0, 0} end
  local holds = number('attempt') == of.attempt
  local became = {}
  local function note(what, ids)
    for _, id in ipairs(ids) do became[id] = what end
  end
  note('delivered', of.delivered)
  if holds then
    note('dead', of.dead)
    note('last', of.last)
    for id in pairs(of.alone) do became[id] = 'alone' end
  end
  local left, last, delivered, dead, retried = {}, {}, 0, 0, 0
  for _, stay in ipairs(redis.call('LRANGE', BATCH, 0, -1)) do
    local id = cjson.decode(stay).id
    local what = became[id] or 'left'
    if what == 'delivered' then
      delivered = delivered + 1
    elseif what == 'dead' then
      redis.call('HSET', DEAD, id, stay)
      dead = dead + 1
    elseif what == 'alone' then
      redis.call('ZADD', ALONE, seconds(now + of.alone[id]), of.attempt .. ' ' .. stay)
      retried = retried + 1
    else
      table.insert(what == 'last' and last or left, stay)
      retried = retried + 1
    end
  end
  redis.call('DEL', BATCH)
  if #left > 0 then redis.call('RPUSH', BATCH, unpack(left)) end
  if #last > 0 then redis.call('RPUSH', BATCH, unpack(last)) end
  if holds then
    redis.call('HDEL', RELAY, 'leased_until', 'due')
    if of.error ~= '' then redis.call('HSET', RELAY, 'error', of.error) end
    if of.delay > 0 then
      redis.call('HSET', RELAY, 'due', seconds(now + of.delay))
      redis.call('HSETNX', RELAY, 'failing_since', seconds(now))
    end
  end
  if delivered > 0 or holds and of.error == '' then
    redis.call('HDEL', RELAY, 'failures', 'failing_since', 'error')
  elseif holds and of.delay > 0 then
    redis.call('HINCRBY', RELAY, 'failures', 1)
  end
  local first = holds and of.attempt == 1 and retried or 0 -- each counts once, however often it is tried again
  return {count('delivered', delivered), count('retried', first), count('failed', dead)}
end

-- Takes the id and the stay of one that was given up, and has it wait again as if it were new.
-- Returns 1, or 0 where it is not held as given up, or not as this stay.
local function put_back(id, stay)
  if redis.call('HGET', DEAD, id) ~= stay then return 0 end
  redis.call('RPUSH', WAITING, stay)
  redis.call('HDEL', DEAD, id)
  return 1
end

-- This fails, before anything is changed, where Redis takes no writes now. But a Redis that is full takes it, and after it
-- what follows: an outbox that filled it can be emptied.
redis.call('HDEL', RELAY, '')
if ARGV[1] == 'take' then return take(tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1') end
if ARGV[1] == 'settle' then
  local answer = settle(cjson.decode(ARGV[4]))
  if ARGV[5] then answer[4] = take(tonumber(ARGV[5]), tonumber(ARGV[6]), false) end
  return answer
end
return put_back(ARGV[4], ARGV[5])
