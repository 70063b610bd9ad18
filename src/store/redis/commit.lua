-- Makes a change, whole or not at all.
--
-- KEYS: epoch, count, log, log's ends, statuses, statuses' ends, outbox, messages; then one for each
-- part that has one, in the order of the parts.
-- ARGV: the epoch that the caller knows; `1` where the server is to be compared with the epoch's;
-- now; by when what is done once could have been done before, in milliseconds, or nothing; for how
-- many milliseconds a moved or new store is not trusted with what is done once; then the parts, each
-- a letter and its fields:
--   o until ttl                      once                        key
--   e version value ttl              an entry, or no value       key
--   s index until score value        a place in the status list
--   r id at until score ttl          a revocation                key
--   c version value ttl              a record                    key
--   m id due value                   a message
-- Times within values and all that is compared are eight bytes, big-endian, with the sign turned
-- over; a ttl is milliseconds, or nothing for what is kept for good.
-- Returns the count of changes; 0 where it was made before; -1 where the epoch is another; -2 where
-- it cannot be known whether it was made before.
local function order(a, b)
  local high, low = struct.unpack('>I4I4', a)
  local other_high, other_low = struct.unpack('>I4I4', b)
  if high ~= other_high then return high - other_high end
  return low - other_low
end

local function keep(key, value, ttl)
  if ttl == '' then redis.call('SET', key, value) else redis.call('SET', key, value, 'PX', ttl) end
end

local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then return -1 end
local id, lost, born, moved, ran = string.match(epoch, '^(%w+):(%d+):(%d+):(%d+):(%w+)$')
if ARGV[2] == '1' and ran ~= string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') then
  return -1
end
local now, since, settling = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if since then
  local young = ms < math.max(tonumber(born), tonumber(moved)) + settling
  if young or since <= tonumber(lost) then return -2 end
end
local moving = ms < tonumber(moved) + settling

-- What an entry is: the epoch in which it was written (none where it is kept for good), version,
-- until, body. Of an earlier epoch there may have been a later version: it is as good as none.
local function over(entry)
  local of = string.sub(entry, 1, 16)
  if order(string.sub(entry, 25, 32), now) <= 0 then return true end
  return of ~= string.rep('-', 16) and of ~= id
end
local none = string.rep('\0', 8)

local FIELDS = {o = 2, e = 3, s = 4, r = 5, c = 3, m = 3}
local at, key = 6, 9
while ARGV[at] do
  local part = ARGV[at]
  if part == 'o' then
    local until_ = redis.call('GET', KEYS[key])
    if until_ and order(until_, now) > 0 then return 0 end
  elseif part == 'e' then
    local version, entry = none, redis.call('GET', KEYS[key])
    if entry and not over(entry) then version = string.sub(entry, 17, 24) end
    if moving and version ~= none then return -2 end
    if version ~= ARGV[at + 1] then return 0 end
  elseif part == 's' then
    local place = redis.call('HGET', KEYS[5], ARGV[at + 1])
    if place and order(string.sub(place, 1, 8), now) > 0 then return 0 end
  end
  if part ~= 's' and part ~= 'm' then key = key + 1 end
  at = at + 1 + FIELDS[part]
end

local count = redis.call('INCR', KEYS[2])
at, key = 6, 9
while ARGV[at] do
  local part, a, b, c, d, e = unpack(ARGV, at, at + 5)
  local name = KEYS[key]
  if part == 'o' then
    keep(name, a, b)
  elseif part == 'e' then
    if b == '' then redis.call('DEL', name) else keep(name, b, c) end
  elseif part == 's' then
    redis.call('HSET', KEYS[5], a, d)
    redis.call('ZADD', KEYS[6], c, a)
  elseif part == 'r' then
    local known = redis.call('GET', name)
    local known_until = known and string.sub(known, 9, 16)
    if known_until and order(known_until, now) > 0 then
      local known_at = string.sub(known, 1, 8)
      if order(known_at, b) > 0 then b = known_at end
      if order(known_until, c) > 0 then
        -- The key lives as long as it did.
        local left = redis.call('PTTL', name)
        c, d = known_until, redis.call('ZSCORE', KEYS[4], a .. known) or d
        e = left > 0 and left or ''
      end
    end
    local value = b .. c
    if value ~= known then
      keep(name, value, e)
      -- Each has a place of its own in the log.
      count = redis.call('INCR', KEYS[2])
      redis.call('ZADD', KEYS[3], count, a .. value)
      redis.call('ZADD', KEYS[4], d, a .. value)
      if known then
        redis.call('ZREM', KEYS[3], a .. known)
        redis.call('ZREM', KEYS[4], a .. known)
      end
    end
  elseif part == 'c' then
    local known = redis.call('GET', name)
    if not known or order(string.sub(known, 1, 8), a) <= 0 then keep(name, b, c) end
  elseif part == 'm' then
    redis.call('ZADD', KEYS[7], b, a)
    redis.call('HSET', KEYS[8], a, c)
  end
  if part ~= 's' and part ~= 'm' then key = key + 1 end
  at = at + 1 + FIELDS[part]
end
return count
