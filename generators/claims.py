"""The scripts that Redis runs for the cameras: each looks at the records and writes its claim in one atomic step.

Database 0 is the backend's and is only read. The claims are three hashes in database 1, a field per plate:

==================== =============================== ==============================================================
``carpark:entering`` ``<time> <expires> <event id>`` let in by a camera, until the records know this entry
``carpark:leaving``  ``<entry time> <expires>``      chosen to leave, until the records know that this stay is over
``carpark:exits``    ``<time>``                      when a plate last left, for a minute: it enters again only later
==================== =============================== ==============================================================

Each call looks at a few random claims and removes those that are settled, so that there are never many more claims than
events which the backend has not got round to.
"""

_COMMON = """
local records, claims, now, horizon = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local function read(...) redis.call('SELECT', records); return redis.call(...) end
local function write(...) redis.call('SELECT', claims); return redis.call(...) end
local function parts(claim) return string.match(claim, '^(%S+) (%S+) ?(%S*)$') end

local function settled(kind, plate, claim)
  if kind == 'exits' then return claim < horizon end
  local time, expires = parts(claim)
  if tonumber(expires) <= now then return true end
  local recorded = read('HGET', plate, 'entry_time')
  if kind == 'entering' then return recorded and recorded >= time end
  return recorded ~= time or read('SISMEMBER', 'entry_plates', plate) == 0
end

local function sweep(kind, count)
  local sample = write('HRANDFIELD', 'carpark:' .. kind, count, 'WITHVALUES') or {}
  for i = 1, #sample, 2 do
    if settled(kind, sample[i], sample[i + 1]) then write('HDEL', 'carpark:' .. kind, sample[i]) end
  end
end

local function answer(...) redis.call('SELECT', records); return {...} end
"""

_CROWD = """
local function crowd() return read('SCARD', 'entry_plates'), write('HLEN', 'carpark:entering') end
"""

ENTER = (
    _COMMON
    + _CROWD
    + """
local plate, time, id, expires, capacity = ARGV[5], ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
sweep('entering', 3)
sweep('exits', 3)
local claim = write('HGET', 'carpark:entering', plate)
if claim then
  local _, _, owner = parts(claim)
  if owner == id then return answer('in') end
end
if capacity > 0 then
  local inside, entering = crowd()
  if inside + entering >= capacity then
    sweep('entering', 200)
    inside, entering = crowd()
  end
  if inside + entering >= capacity then return answer('full') end
end
if read('SISMEMBER', 'entry_plates', plate) == 1 then return answer('taken') end
if claim and not settled('entering', plate, claim) then return answer('taken') end
local left = write('HGET', 'carpark:exits', plate)
if left and left >= time then return answer('taken') end
write('HSET', 'carpark:entering', plate, time .. ' ' .. expires .. ' ' .. id)
return answer('in')
"""
)
"""Let a plate in. Arguments after the common ones: plate, time, id, expires, capacity.

Answer: ``in``, ``taken`` or ``full``.
"""

LEAVE = (
    _COMMON
    + """
local time, expires, draws, cursor = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]
local ahead = 0
if draws > 0 then
  sweep('leaving', 3)
  sweep('exits', 3)
end
if read('SCARD', 'entry_plates') == 0 then return answer('empty', '', '0', 0) end

local function free(plate)
  local entered = read('HGET', plate, 'entry_time')
  if not entered then return false end
  if entered >= time then ahead = ahead + 1; return false end
  local claim = write('HGET', 'carpark:leaving', plate)
  if claim then
    local of, until_ = parts(claim)
    if of == entered and tonumber(until_) > now then return false end
  end
  write('HSET', 'carpark:leaving', plate, entered .. ' ' .. expires)
  write('HSET', 'carpark:exits', plate, time)
  return true
end

if draws > 0 then
  for _, plate in ipairs(read('SRANDMEMBER', 'entry_plates', -draws)) do
    if free(plate) then return answer('out', plate, cursor, 0) end
  end
end
local page = read('SSCAN', 'entry_plates', cursor, 'COUNT', 200)
for _, plate in ipairs(page[2]) do
  if free(plate) then return answer('out', plate, cursor, 0) end
end
return answer('none', '', page[1], ahead)
"""
)
"""Choose who leaves: first at random, then, when nearly everybody is leaving already, by walking through the set.

Arguments after the common ones: time, expires, draws, cursor. Answer: ``out``, ``none`` or ``empty``; plate; next
cursor; how many of those looked at entered in this clock's future.
"""

SLIP_OUT = (
    _COMMON
    + """
local plate, time = ARGV[5], ARGV[6]
sweep('exits', 3)
if read('SISMEMBER', 'entry_plates', plate) == 1 then return answer(0) end
local claim = write('HGET', 'carpark:entering', plate)
if claim and not settled('entering', plate, claim) then return answer(0) end
write('HSET', 'carpark:exits', plate, time)
return answer(1)
"""
)
"""May a plate that nobody saw entering leave: 1 or 0. Arguments after the common ones: plate, time."""

KEEP = (
    _COMMON
    + """
local expires = ARGV[5]
for i = 6, #ARGV, 4 do
  local kind, plate, time, id = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local recorded = read('HGET', plate, 'entry_time')
  if kind == 'entry' then
    local claim = write('HGET', 'carpark:entering', plate)
    local mine = not claim or string.sub(claim, -#id) == id
    if mine and settled('entering', plate, time .. ' ' .. expires) then
      write('HDEL', 'carpark:entering', plate)
    elseif mine then
      write('HSET', 'carpark:entering', plate, time .. ' ' .. expires .. ' ' .. id)
    end
  elseif read('SISMEMBER', 'entry_plates', plate) == 0 then
    write('HDEL', 'carpark:leaving', plate)
  elseif recorded and recorded <= time then
    write('HSET', 'carpark:leaving', plate, recorded .. ' ' .. expires)
  end
end
return answer('kept')
"""
)
"""Hold the claims of events that were made. Arguments after the common ones: expires; kind, plate, time, id of each."""

CROWD = (
    _COMMON
    + _CROWD
    + """
local inside, entering = crowd()
return answer(inside, entering)
"""
)
"""How many are inside and entering."""

RIGHTS = """
for _, key in ipairs({'A1', '1A', 'Ä1', '京1', 'बा1'}) do need('HGET', key, 'entry_time') end
need('SELECT', ARGV[3])
need('SISMEMBER', 'entry_plates', 'x')
need('SCARD', 'entry_plates')
need('SRANDMEMBER', 'entry_plates', -1)
need('SSCAN', 'entry_plates', 0)
for _, key in ipairs({'carpark:entering', 'carpark:leaving', 'carpark:exits'}) do
  need('HGET', key, 'x')
  need('HSET', key, 'x', 'x')
  need('HDEL', key, 'x')
  need('HRANDFIELD', key, 1)
end
need('HLEN', 'carpark:entering')
need('SCRIPT', 'LOAD', '')
return rights()
"""
"""What all of these do, as `need` of the records' scripts asks for it. Arguments: ``rights``, no keys,
the database."""
