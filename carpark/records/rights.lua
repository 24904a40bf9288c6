-- A right that is missing is found before anything is changed: no event is to blame for it, and no step is half done.
-- Redis says it since its version 7; before, the first command that it refuses ends the step.
local may = redis.acl_check_cmd or function() return true end
-- Who only asks names the keys as JSON: Redis lets nobody run a script who may not use all that are named as keys.
local IS_ASKED = ARGV[1] == 'rights'
local KEYS = IS_ASKED and cjson.decode(ARGV[2]) or KEYS
local granted, denied = {}, {}
local function need(...)
  local is_granted = may(...)
  if is_granted and not IS_ASKED then return end
  local command, key = ...
  local list = is_granted and granted or denied
  list[#list + 1] = key and command .. ' ' .. key or command
end
local function rights() return redis.acl_check_cmd and {granted, denied} or {{}, {}} end
local function no_right() return redis.error_reply('NOPERM this user may not run ' .. table.concat(denied, ', ')) end


