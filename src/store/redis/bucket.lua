-- Takes from a token bucket, which is one time: when it will be full again (GCRA). Kept as seconds
-- and nanoseconds, for a double holds no nanoseconds since 1970.
--
-- KEYS: the bucket. ARGV: now in seconds; window, cost in nanoseconds; how many milliseconds longer
-- than it fills the key is kept.
-- Returns the nanoseconds until it is full; where it held too little and nothing was taken, -1 less
-- that.
local now, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local filling, clamped = 0, false
local there = redis.call('GET', KEYS[1])
if there then
  local seconds, nanos = string.match(there, '^(-?%d+):(%d+)$')
  filling = (tonumber(seconds) - now) * 1e9 + tonumber(nanos)
  clamped = filling > window
  filling = math.max(0, math.min(filling, window))
end
local taken = filling + cost <= window
if taken then filling = filling + cost end
if filling > 0 and (clamped or (taken and cost > 0)) then
  local full_at = string.format('%.0f:%.0f', now + math.floor(filling / 1e9), filling % 1e9)
  redis.call('SET', KEYS[1], full_at, 'PX', math.ceil(filling / 1e6) + tonumber(ARGV[4]))
end
if taken then return filling end
return -1 - filling
