-- One call records a list of events, each in one atomic step: it knows the event's id, joins entry and exit by the
-- events' own times, keeps the counts, and remembers a finished stay's summary until every sink has it.
--
-- KEYS  entry_plates, carpark:counts, carpark:seen:entry, carpark:seen:exit, carpark:undelivered
-- ARGV  now (s), retention (s), number of sinks, the sinks' names, then per event: kind, id, plate, time, JSON
-- Returns per event {outcome, stay, sinks that still want it ...}, or {"error", reason}.
--
-- A plate's hash has, beside entry_time, parking_enter_data and parking_exit_data:
--   entry_id           the id of the entry that is open now; there only while the vehicle is inside
--   exit_time          the time of the exit in parking_exit_data
--   open <time> <id>   an entry that a later one superseded, open still; its value is the time of the later one
--   wait <time> <id>   an exit that waits for its entry; its value is the event
-- Times are of one length, so they compare as text.

local INSIDE, COUNTS, UNDELIVERED = KEYS[1], KEYS[2], KEYS[5]
local SEEN = {entry = KEYS[3], exit = KEYS[4]}
local MOST = 8 -- open entries, and waiting exits, per plate
local TIME = 27 -- characters of a time
local now, retention = tonumber(ARGV[1]), tonumber(ARGV[2])
local forget_at = string.format('%.3f', now + retention)
local sinks = {}
for i = 1, tonumber(ARGV[3]) do sinks[i] = ARGV[3 + i] end

local function count(name) redis.call('HINCRBY', COUNTS, name, 1) end

local function load(plate)
  local flat = redis.call('HGETALL', plate)
  local record = {plate = plate, open = {}, wait = {}}
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    local list = record[string.sub(field, 1, 4)]
    if string.sub(field, 5, 5) == ' ' and list then
      list[#list + 1] = {field = field, time = string.sub(field, 6, 5 + TIME), id = string.sub(field, 7 + TIME),
                         value = value}
    else
      record[field] = value
    end
  end
  for _, name in ipairs({'open', 'wait'}) do
    table.sort(record[name], function(a, b) return a.field < b.field end)
  end
  return record
end

-- An id that belongs to a vehicle inside is remembered as long as that is inside, every other one for the retention.
local function remember(kind, id, inside)
  redis.call('ZADD', SEEN[kind], inside and '+inf' or forget_at, id)
end

local function remember_all(record, inside)
  for _, entry in ipairs(record.open) do remember('entry', entry.id, inside) end
  for _, exit in ipairs(record.wait) do remember('exit', exit.id, inside) end
end

local function is_seen(kind, id)
  local score = redis.call('ZSCORE', SEEN[kind], id)
  return score and (score == 'inf' or tonumber(score) > now)
end

local function forget_some(kind)
  local old = redis.call('ZRANGEBYSCORE', SEEN[kind], '-inf', string.format('%.3f', now), 'LIMIT', 0, 4)
  if #old > 0 then redis.call('ZREM', SEEN[kind], unpack(old)) end
end

local function keep(record, inside)
  if inside then
    redis.call('PERSIST', record.plate)
  else
    redis.call('PEXPIRE', record.plate, math.ceil(retention * 1000))
  end
end

local function add(record, list, kind, time, id, value)
  if #record[list] >= MOST - (list == 'open' and 1 or 0) then
    local oldest = table.remove(record[list], 1)
    redis.call('HDEL', record.plate, oldest.field)
    remember(kind, oldest.id, false)
    count(kind .. '/dropped')
  end
  local field = list .. ' ' .. time .. ' ' .. id
  redis.call('HSET', record.plate, field, value)
  table.insert(record[list], {field = field, time = time, id = id, value = value})
end

-- The entry that is open now stays open for an exit between itself and the later entry.
local function supersede(record, later)
  add(record, 'open', 'entry', record.entry_time, record.entry_id, later)
  count('entry/abandoned')
end

local function leave(record)
  redis.call('SREM', INSIDE, record.plate)
  redis.call('HDEL', record.plate, 'entry_id')
  remember_all(record, false)
end

-- What people see in the record is the newest stay.
local function show_stay(record, entry_time, entry_data, exit_time, exit_data)
  if not record.entry_time or record.entry_time <= entry_time then
    redis.call('HSET', record.plate, 'entry_time', entry_time, 'parking_enter_data', entry_data,
               'exit_time', exit_time, 'parking_exit_data', exit_data)
  end
end

local function finish(kind, id, plate, entry_time, exit_time, exit_id)
  local stay = entry_time .. ' ' .. exit_time .. ' ' .. plate .. ' ' .. exit_id
  for _, sink in ipairs(sinks) do
    redis.call('HSET', UNDELIVERED, sink .. '/' .. kind .. '/' .. id, 'new ' .. stay)
  end
  count('summaries')
  return {'matched', stay, unpack(sinks)}
end

local function take_exit(record, time, before)
  for i, exit in ipairs(record.wait) do
    if exit.time >= time and (not before or exit.time < before) then
      table.remove(record.wait, i)
      return exit
    end
  end
end

-- The time of the earliest entry known that is later than this one.
local function later_entry(record, time)
  local later = record.entry_time and record.entry_time > time and record.entry_time or nil
  for _, entry in ipairs(record.open) do
    if entry.time > time and (not later or entry.time < later) then later = entry.time end
  end
  return later
end

local function enter(record, id, time, data)
  local inside = record.entry_id ~= nil and record.entry_id ~= false
  local later = later_entry(record, time)
  local exit = take_exit(record, time, later)
  if exit then
    redis.call('HDEL', record.plate, exit.field)
    if inside and not later then
      supersede(record, time)
      leave(record)
      inside = false
    end
    if not inside then show_stay(record, time, data, exit.time, exit.value) end
    remember('entry', id, false)
    remember('exit', exit.id, false)
    keep(record, inside)
    count('entry/matched')
    return finish('entry', id, record.plate, time, exit.time, exit.id)
  end
  count('entry/recorded')
  if later then
    add(record, 'open', 'entry', time, id, later)
    count('entry/abandoned')
    remember('entry', id, inside)
    keep(record, inside)
    return {'recorded', ''}
  end
  if inside then supersede(record, time) end
  redis.call('HSET', record.plate, 'entry_time', time, 'parking_enter_data', data, 'entry_id', id)
  redis.call('HDEL', record.plate, 'parking_exit_data', 'exit_time')
  redis.call('SADD', INSIDE, record.plate)
  remember('entry', id, true)
  if not inside then remember_all(record, true) end
  keep(record, true)
  return {'recorded', ''}
end

local function close_superseded(record, time)
  for i = #record.open, 1, -1 do
    local entry = record.open[i]
    if entry.time <= time and time < entry.value then return table.remove(record.open, i) end
  end
end

local function exit(record, id, time, data)
  local inside = record.entry_id ~= nil and record.entry_id ~= false
  if inside and record.entry_time <= time then
    remember('entry', record.entry_id, false)
    leave(record)
    show_stay(record, record.entry_time, record.parking_enter_data, time, data)
    remember('exit', id, false)
    keep(record, false)
    count('exit/matched')
    return finish('exit', id, record.plate, record.entry_time, time, id)
  end
  local entry = close_superseded(record, time)
  if entry then
    redis.call('HDEL', record.plate, entry.field)
    remember('entry', entry.id, false)
    remember('exit', id, false)
    keep(record, inside)
    count('exit/matched')
    count('entry/reclaimed')
    return finish('exit', id, record.plate, entry.time, time, id)
  end
  add(record, 'wait', 'exit', time, id, data)
  if not inside and (not record.exit_time or record.exit_time <= time) then
    redis.call('HSET', record.plate, 'exit_time', time, 'parking_exit_data', data)
    redis.call('HDEL', record.plate, 'entry_time', 'parking_enter_data')
  end
  remember('exit', id, inside)
  keep(record, inside)
  count('exit/unmatched')
  return {'unmatched', ''}
end

-- Seen before: no effect, but a summary that a crash kept from its sinks is handed out again.
local function repeated(kind, id)
  count(kind .. '/duplicate')
  local result = {'duplicate', ''}
  for _, sink in ipairs(sinks) do
    local value = redis.call('HGET', UNDELIVERED, sink .. '/' .. kind .. '/' .. id)
    if value and string.sub(value, 1, 4) == 'new ' then
      result[2] = string.sub(value, 5)
      result[#result + 1] = sink
    end
  end
  return result
end

local function record_event(kind, id, plate, time, data)
  local record = load(plate)
  forget_some(kind)
  if is_seen(kind, id) then return repeated(kind, id) end
  if kind == 'entry' then return enter(record, id, time, data) end
  return exit(record, id, time, data)
end

local results = {}
for i = 4 + #sinks, #ARGV, 5 do
  local ok, result = pcall(record_event, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  if not ok then
    if type(result) == 'table' then result = result.err end
    result = {'error', tostring(result)}
  end
  results[#results + 1] = result
end
return results
