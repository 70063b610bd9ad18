-- Forgets some of what is over and whose keys do not end by themselves.
--
-- KEYS: log, log's ends, statuses, statuses' ends. ARGV: what ends then or earlier; how many of each.
-- Returns how many of either were forgotten.
local function swept(ends, forget)
  local over = redis.call('ZRANGEBYSCORE', ends, '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
  for _, member in ipairs(over) do
    forget(member)
    redis.call('ZREM', ends, member)
  end
  return #over
end
local revocations = swept(KEYS[2], function(member) redis.call('ZREM', KEYS[1], member) end)
local statuses = swept(KEYS[4], function(index) redis.call('HDEL', KEYS[3], index) end)
return math.max(revocations, statuses)
