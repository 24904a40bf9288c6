-- One call records a list of events, each in one atomic step: it knows the event's id, joins entry and exit by the
-- events' own times, keeps the counts, and puts a finished stay into the outbox of each sink.
--
-- KEYS  entry_plates, carpark:counts, carpark:seen:entry, carpark:seen:exit, carpark:sinks, carpark:entries, then each
--       sink's outbox
-- ARGV  now (s; empty for this server's clock), retention (s), how, after, marker, what the partition's fields of
--       carpark:entries begin with, the number of sinks, their names, then per event: kind, id, plate, time, JSON
-- Returns per event {outcome, the stay's JSON or nothing}, {"recorded", "", "abandoned"} where an entry is superseded,
-- or {"error", reason}. Or nothing but {{"held", how many lists of entries there were}}. With "rights" as now nothing is
-- recorded: what this user may do, and may not, is returned.
--
-- How is "entries" for those of a queue, and "exits" for those of a queue. These are held, with nothing recorded, unless
-- the entry recorded last is not earlier than after, or their marker was reached in the queue of entries.
--
-- A plate's hash has entry_time, parking_enter_data and parking_exit_data of its newest stay, or parking_exit_data alone
-- of an exit when no stay is known; and beside them:
--   entry_id           the id of the entry that is open now; there only while the vehicle is inside
--   open <time> <id>   an entry that a later one superseded, open still; its value is the time of the later one
--   wait <time> <id>   an exit that waits for its entry; its value is the event
-- Times are of one length, so they compare as text.

local INSIDE, COUNTS, SINKS, ENTRIES, FIRST_OUTBOX = KEYS[1], KEYS[2], KEYS[5], KEYS[6], 7
local SEEN = {entry = KEYS[3], exit = KEYS[4]}
local MOST = 8 -- open entries, and waiting exits, per plate
local TIME = 27 -- characters of a time
-- Seconds that no id is old enough for. With +inf for all of those inside, a new id would be put somewhere among them,
-- which costs the more the more there are; so it is always put at the end.
local FOREVER = 1e11
local how, after, marker, partition, first = ARGV[3], ARGV[4], ARGV[5], ARGV[6], 8 + tonumber(ARGV[7])

-- What the step itself finds out before it changes anything is not asked for here.
local plate = ARGV[first + 2]
need('HINCRBY', COUNTS, 'x', 0)
need('SADD', INSIDE, 'x')
need('SREM', INSIDE, 'x')
need('ZADD', SEEN.entry, 0, 'x')
need('ZADD', SEEN.exit, 0, 'x')
for i = FIRST_OUTBOX, #KEYS do need('RPUSH', KEYS[i], 'x') end
if plate then
  need('HSET', plate, 'x', 'x')
  need('PERSIST', plate)
  need('PEXPIRE', plate, 1)
end
for i = first, #ARGV, 5 do need('HDEL', ARGV[i + 2], 'x') end
if IS_ASKED then -- then all is asked for, with what is done with these keys outside of this script
  for _, command in ipairs({'TIME', 'MULTI', 'EXEC', 'PING'}) do need(command) end
  need('SCRIPT', 'LOAD', '')
  need('EXISTS', 'carpark:order')
  need('HSETNX', COUNTS, 'x', 0)
  need('HGETALL', COUNTS)
  need('HGET', ENTRIES, 'x')
  need('HMGET', ENTRIES, 'x')
  need('HSET', ENTRIES, 'x', 'x')
  need('SCARD', INSIDE)
  need('SCARD', SINKS)
  need('SADD', SINKS, 'x')
  need('SMEMBERS', SINKS)
  for _, key in pairs(SEEN) do
    need('ZSCORE', key, 'x')
    need('ZCOUNT', key, 0, 0)
    need('ZREMRANGEBYRANK', key, 0, 0)
  end
  for i = FIRST_OUTBOX, #KEYS do need('LLEN', KEYS[i]) end
  for i = first, #ARGV, 5 do need('HGETALL', ARGV[i + 2]) end
  if #denied == 0 then redis.call('HDEL', COUNTS, '') end -- changes nothing, and fails where Redis takes no writes now
  return rights()
end
if #denied > 0 then return no_right() end

local now, retention = clock(ARGV[1]), tonumber(ARGV[2])
local forget_at, stay_until = string.format('%.3f', now + retention), string.format('%.3f', now + FOREVER)
-- Where a test has made this list, it tells the order in which events took effect.
local ORDER = redis.call('EXISTS', 'carpark:order') == 1 and 'carpark:order'

local function count(name) redis.call('HINCRBY', COUNTS, name, 1) end

local function by_time(a, b) return a.field < b.field end

local function load(plate)
  local flat = redis.call('HGETALL', plate)
  local record = {plate = plate, open = {}, wait = {}}
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    local list = string.sub(field, 5, 5) == ' ' and record[string.sub(field, 1, 4)]
    if list then
      list[#list + 1] = {field = field, time = string.sub(field, 6, 5 + TIME), id = string.sub(field, 7 + TIME),
                         value = value}
    else
      record[field] = value
    end
  end
  table.sort(record.open, by_time)
  table.sort(record.wait, by_time)
  record.inside = record.entry_id ~= nil
  return record
end

local function is_seen(kind, id)
  local score = redis.call('ZSCORE', SEEN[kind], id)
  return score and tonumber(score) > now
end

-- An id that the record of a vehicle inside names is remembered as long as that is inside, others for the retention.
local function remember(kind, id, inside)
  redis.call('ZADD', SEEN[kind], inside and stay_until or forget_at, id)
end

-- Some per event, so that they do not pile up; not all at once, because that could take seconds.
local function forget_some(kind, most)
  local old = math.min(redis.call('ZCOUNT', SEEN[kind], '-inf', string.format('%.3f', now)), most)
  if old > 0 then redis.call('ZREMRANGEBYRANK', SEEN[kind], 0, old - 1) end
end

local function add(record, list, time, id, value)
  local field = list .. ' ' .. time .. ' ' .. id
  redis.call('HSET', record.plate, field, value)
  table.insert(record[list], {field = field, time = time, id = id, value = value})
  table.sort(record[list], by_time)
end

local function take(record, list, i)
  local taken = table.remove(record[list], i)
  redis.call('HDEL', record.plate, taken.field)
  return taken
end

-- The end of each step: no more than there may be, and what the record names is known as long as the record is kept.
local function keep(record)
  for list, kind in pairs({open = 'entry', wait = 'exit'}) do
    local most = (list == 'open' and record.inside) and MOST - 1 or MOST
    while #record[list] > most do
      remember(kind, take(record, list, 1).id, false)
      count(kind .. '/dropped')
    end
    for _, event in ipairs(record[list]) do remember(kind, event.id, record.inside) end
  end
  if record.inside then
    redis.call('PERSIST', record.plate)
  else
    redis.call('PEXPIRE', record.plate, string.format('%.0f', math.ceil(retention * 1000)))
  end
end

local function finish(kind, record, entry, exit)
  count(kind .. '/matched')
  count('summaries')
  remember('entry', entry.id, false)
  remember('exit', exit.id, false)
  local stay = '{"id":' .. cjson.encode(exit.id) .. ',"vehicle_plate":' .. cjson.encode(record.plate)
    .. ',"entry_date_time":"' .. entry.time .. '","exit_date_time":"' .. exit.time
    .. '","recorded_at":' .. string.format('%.3f', now) .. '}'
  for i = FIRST_OUTBOX, #KEYS do redis.call('RPUSH', KEYS[i], stay) end
  return {'matched', stay}
end

-- The time of the earliest known entry that is later than this one.
local function next_entry(record, time)
  local later
  local function look_at(known)
    if known and known > time and (not later or known < later) then later = known end
  end
  look_at(record.entry_time)
  for _, entry in ipairs(record.open) do
    look_at(entry.time)
    look_at(entry.value)
  end
  return later
end

-- An entry stays open for an exit between itself and the entry that superseded it. So an exit has one to close at most.
local function supersede(record, time)
  for _, entry in ipairs(record.open) do
    if entry.time <= time and entry.value > time then
      entry.value = time
      redis.call('HSET', record.plate, entry.field, time)
    end
  end
end

local function take_exit(record, time, before)
  for i, exit in ipairs(record.wait) do
    if exit.time >= time and (not before or exit.time < before) then return take(record, 'wait', i) end
  end
end

local function take_entry(record, time)
  for i, entry in ipairs(record.open) do
    if entry.time <= time and time < entry.value then return take(record, 'open', i) end
  end
end

local function record_entry(record, id, time, data)
  local later = next_entry(record, time)
  supersede(record, time)
  local exit = take_exit(record, time, later)
  if exit then
    -- A vehicle inside has a later entry here: an exit that is not earlier than the open entry never waits.
    if not record.inside and (not record.entry_time or record.entry_time <= time) then
      redis.call('HSET', record.plate, 'entry_time', time, 'parking_enter_data', data,
                 'parking_exit_data', exit.value)
    end
    return finish('entry', record, {id = id, time = time}, exit)
  end
  count('entry/recorded')
  if later then
    count('entry/abandoned')
    add(record, 'open', time, id, later)
    return {'recorded', '', 'abandoned'}
  end
  local superseded = record.inside and 'abandoned' or nil
  if superseded then
    count('entry/abandoned')
    add(record, 'open', record.entry_time, record.entry_id, time)
  end
  redis.call('HSET', record.plate, 'entry_time', time, 'parking_enter_data', data, 'entry_id', id)
  redis.call('HDEL', record.plate, 'parking_exit_data')
  redis.call('SADD', INSIDE, record.plate)
  remember('entry', id, true)
  record.inside = true
  return {'recorded', '', superseded}
end

local function record_exit(record, id, time, data)
  if record.inside and record.entry_time <= time then
    redis.call('HSET', record.plate, 'parking_exit_data', data)
    redis.call('HDEL', record.plate, 'entry_id')
    redis.call('SREM', INSIDE, record.plate)
    record.inside = false
    return finish('exit', record, {id = record.entry_id, time = record.entry_time}, {id = id, time = time})
  end
  local entry = take_entry(record, time)
  if entry then
    count('entry/reclaimed')
    return finish('exit', record, entry, {id = id, time = time})
  end
  count('exit/unmatched')
  add(record, 'wait', time, id, data)
  if not record.entry_time then redis.call('HSET', record.plate, 'parking_exit_data', data) end
  return {'unmatched', ''}
end

local function record_event(kind, id, plate, time, data)
  if is_seen(kind, id) then
    count(kind .. '/duplicate')
    return {'duplicate', ''}
  end
  local record = load(plate)
  local step = kind == 'entry' and record_entry or record_exit
  local result = step(record, id, time, data)
  keep(record)
  if ORDER then redis.call('RPUSH', ORDER, kind .. ' ' .. id) end
  return result
end

-- Whether an error says that what is kept of a plate is not ours. Any other is nobody's event's: all of them wait.
local function is_of_the_record(reason)
  for _, sign in ipairs({'WRONGTYPE', 'attempt to', 'bad argument'}) do
    if string.find(reason, sign, 1, true) then return true end
  end
  return false
end

-- These fail, for the whole call and before anything is changed, where Redis takes no writes now or a key is not ours.
redis.call('HSETNX', COUNTS, 'summaries', 0)
redis.call('SCARD', INSIDE)
redis.call('SCARD', SINKS)
local last, reached, wanted, lists = unpack(redis.call(
  'HMGET', ENTRIES, partition .. 'time', partition .. 'reached', partition .. 'wanted', partition .. 'lists'))
for i = FIRST_OUTBOX, #KEYS do redis.call('LLEN', KEYS[i]) end
-- Known by name from now on, so that what waits for one that nobody serves any more is found.
for i = 8, first - 1 do redis.call('SADD', SINKS, ARGV[i]) end
if how == 'exits' and not (last and last >= after) and reached ~= marker then
  if wanted ~= marker then redis.call('HSET', ENTRIES, partition .. 'wanted', marker) end
  return {{'held', lists or '0'}}
end
forget_some('entry', 4 * (#ARGV - first + 1))
forget_some('exit', 4 * (#ARGV - first + 1))

local results = {}
for i = first, #ARGV, 5 do
  local ok, result = pcall(record_event, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  if not ok then
    if type(result) == 'table' then result = result.err end
    result = tostring(result)
    if not is_of_the_record(result) then return redis.error_reply(result) end
    result = {'error', result}
  end
  if result[1] == 'recorded' or result[1] == 'matched' then last = ARGV[i + 3] end
  results[#results + 1] = result
end
if how == 'entries' then
  redis.call('HSET', ENTRIES, partition .. 'time', last or '')
  redis.call('HINCRBY', ENTRIES, partition .. 'lists', 1)
end
return results
