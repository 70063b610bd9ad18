-- Takes messages that are due, those that wait longest first, and counts the attempt.
--
-- KEYS: outbox, messages. ARGV: now; until when they are taken; how many.
-- Returns the id and the value of each; a value begins with four bytes that count the attempts.
local taken = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
  local value = redis.call('HGET', KEYS[2], id)
  if value then
    local attempts = struct.unpack('>I4', value)
    value = struct.pack('>I4', math.min(attempts + 1, 4294967295)) .. string.sub(value, 5)
    redis.call('HSET', KEYS[2], id, value)
    redis.call('ZADD', KEYS[1], ARGV[2], id)
    taken[#taken + 1] = id
    taken[#taken + 1] = value
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return taken
