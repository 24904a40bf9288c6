-- Forgets a plate in one step: its record, and the stays that sinks have not taken. What happened stays counted, ids stay
-- known, and up to when the plate is forgotten is kept under a digest of it, for the audit.
--
-- KEYS  the plate, entry_plates, carpark:counts, carpark:seen:entry, carpark:seen:exit, carpark:entries,
--       carpark:forgotten, then those of the outboxes that stays are taken from
-- ARGV  now (s; empty for this server's clock), retention (s), the plate's digest, then per stay: the number of its key
--       among the last ones, its member there, its sink
-- Returns the time of the entry of a vehicle that was inside, or nothing; whether there was a record; how many of the
-- stays were still there.

local PLATE, INSIDE, COUNTS, ENTRIES, FORGOTTEN, FIRST_OUTBOX = KEYS[1], KEYS[2], KEYS[3], KEYS[6], KEYS[7], 8
local SEEN = {open = KEYS[4], wait = KEYS[5]}
local TIME = 27 -- characters of a time

need('DEL', PLATE)
need('SREM', INSIDE, 'x')
need('HINCRBY', COUNTS, 'x', 0)
need('HSET', FORGOTTEN, 'x', 'x')
for _, key in pairs(SEEN) do need('ZADD', key, 0, 'x') end
for i = FIRST_OUTBOX, #KEYS do
  for _, command in ipairs({{'LREM', KEYS[i], 0, 'x'}, {'ZREM', KEYS[i], 'x'}, {'HDEL', KEYS[i], 'x'}}) do
    need(unpack(command))
  end
end
if #denied > 0 then return no_right() end

local forget_at = string.format('%.3f', clock(ARGV[1]) + tonumber(ARGV[2]))
local REMOVE = {
  list = function(key, member) return redis.call('LREM', key, 0, member) end,
  zset = function(key, member) return redis.call('ZREM', key, member) end,
  hash = function(key, member) return redis.call('HDEL', key, member) end,
}

-- Up to its latest time that is known here, or else the latest entry's: what comes later is of a vehicle that came back.
local last, known, inside, taken = '', redis.call('EXISTS', PLATE), '', 0
local function note(time)
  if time and #time == TIME and time > last then last = time end
end

local entries = known == 0 and redis.call('HGETALL', ENTRIES) or {}
for i = 1, #entries, 2 do
  if string.match(entries[i], '^%d*/?time$') then note(entries[i + 1]) end
end
local record = redis.call('TYPE', PLATE).ok == 'hash' and redis.call('HGETALL', PLATE) or {}
for i = 1, #record, 2 do
  local field, value = record[i], record[i + 1]
  local ids = string.sub(field, 5, 5) == ' ' and SEEN[string.sub(field, 1, 4)]
  if ids then
    note(string.sub(field, 6, 5 + TIME))
    redis.call('ZADD', ids, 'XX', forget_at, string.sub(field, 7 + TIME)) -- not as long as the vehicle is inside
  elseif field == 'entry_time' then
    note(value)
    if redis.call('SISMEMBER', INSIDE, PLATE) == 1 then inside = value end
  elseif field == 'entry_id' then
    redis.call('ZADD', SEEN.open, 'XX', forget_at, value)
  elseif field == 'parking_exit_data' then
    note(string.match(value, '"exit_date_time":"([^"]+)"'))
  end
end
redis.call('DEL', PLATE)
if redis.call('SREM', INSIDE, PLATE) == 1 then redis.call('HINCRBY', COUNTS, 'entry/forgotten', 1) end

for i = 4, #ARGV, 3 do
  local key = KEYS[FIRST_OUTBOX + tonumber(ARGV[i])]
  local remove = REMOVE[redis.call('TYPE', key).ok]
  if remove and remove(key, ARGV[i + 1]) > 0 then
    redis.call('HINCRBY', COUNTS, 'summaries/' .. ARGV[i + 2] .. '/forgotten', 1)
    taken = taken + 1
  end
end

local before = redis.call('HGET', FORGOTTEN, ARGV[3])
if not before or string.sub(before, -TIME) < last then
  redis.call('HSET', FORGOTTEN, ARGV[3], before and before .. ' ' .. last or last)
end
return {inside, known, taken}
