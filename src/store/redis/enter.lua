-- Compares what a process knows of the store with the store, and tells which epoch it is in.
--
-- The epoch's value is `id:lost:born:moved:run`. Its id stays as long as nothing is known to have
-- been lost. `lost`: nothing that could have been used by then is taken as unused (milliseconds; 0
-- where nothing was ever lost). `born`: when this id began. `moved`: when another server, or a
-- restarted one, was seen to hold it; `run` is that server's id.
--
-- KEYS: epoch, count. ARGV: an id for a new epoch; the id that the process knows, or nothing; the
-- count that it knows; its time in milliseconds.
-- Returns the epoch, the count of changes, and 1 where the process knew what is not there any more.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local before = redis.call('GET', KEYS[1])
local count = tonumber(redis.call('GET', KEYS[2]) or '0')
local known, known_count = ARGV[2], tonumber(ARGV[3])
local id, lost, born, moved, ran = '', 0, now, 0, run
if before then
  id, lost, born, moved, ran = string.match(before, '^(%w+):(%d+):(%d+):(%d+):(%w+)$')
  lost, born, moved = tonumber(lost), tonumber(born), tonumber(moved)
end
if not before or (id == known and count < known_count) then
  id, born, ran = ARGV[1], now, run
end
if ran ~= run then moved, ran = now, run end
local behind = known ~= '' and id ~= known
if behind then
  -- What the process took before the loss it took by its own clock, which may be ahead.
  lost = math.max(lost, born + math.max(0, tonumber(ARGV[4]) - now))
end
local epoch = string.format('%s:%.0f:%.0f:%.0f:%s', id, lost, born, moved, ran)
if epoch ~= before then redis.call('SET', KEYS[1], epoch) end
return {epoch, count, behind and 1 or 0}
