-- Load for wrk: requests from a file, in turn. Writes what was answered, and the latencies, to files.
--
-- Environment: LOAD_PORTS (one thread each), LOAD_REQUESTS (a file: method, path, token and body of a request in a line,
-- tabs between), LOAD_STATUS (the one that counts as success), LOAD_KEY (of the id in the answer), LOAD_PREFER (a header,
-- may be empty), LOAD_OFFSET (how many requests to skip), LOAD_PAUSE (milliseconds, in the mean, that a client waits
-- before its next request; 0 for none), LOAD_OUT (prefix of the files).

local ports, threads = {}, {}
for port in string.gmatch(os.getenv("LOAD_PORTS"), "%d+") do ports[#ports + 1] = port end

function setup(thread)
  threads[#threads + 1] = thread
  thread:set("number", #threads)
  thread:set("of", #ports)
  thread.addr = wrk.lookup("127.0.0.1", ports[(#threads - 1) % #ports + 1])[1]
end

local lines, position, answers = {}, 0, nil
local expected = tonumber(os.getenv("LOAD_STATUS"))
local pattern = '"' .. os.getenv("LOAD_KEY") .. '":"([%x-]+)"'
local prefer = os.getenv("LOAD_PREFER")
local pause = tonumber(os.getenv("LOAD_PAUSE"))
answered, wrong = 0, 0

function init()
  local n = 0
  for line in io.lines(os.getenv("LOAD_REQUESTS")) do
    n = n + 1
    if n % of == number % of then lines[#lines + 1] = line end  -- no two threads send the same user's
  end
  position = tonumber(os.getenv("LOAD_OFFSET")) % #lines
  answers = io.open(os.getenv("LOAD_OUT") .. ".ids." .. number, "w")
  math.randomseed(number)
end

function request()
  position = position % #lines + 1
  local method, path, token, body = string.match(lines[position], "([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)")
  local headers = { Authorization = "Bearer " .. token }
  if prefer ~= "" then headers.Prefer = prefer end
  if body == "" then return wrk.format(method, path, headers) end
  headers["Content-Type"] = "application/json"
  return wrk.format(method, path, headers, body)
end

if pause > 0 then
  function delay() return math.random(0, 2 * pause) end
end

function response(status, headers, body)
  local id = status == expected and string.match(body, pattern)
  if id then
    answered = answered + 1
    answers:write(id, "\n")
  else
    wrong = wrong + 1
    if wrong < 4 then io.stderr:write(status, " ", body, "\n") end
  end
end

function done(summary, latency)
  local errors, good, bad = summary.errors, 0, 0
  for _, thread in ipairs(threads) do
    good = good + thread:get("answered")
    bad = bad + thread:get("wrong")
  end
  local file = io.open(os.getenv("LOAD_OUT") .. ".latencies", "w")
  file:write(string.format("%d %d %d %d %d %d\n", summary.duration, summary.requests, good, bad, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
  for n = 1, #latency do
    local value, count = latency(n)
    file:write(string.format("%d %d\n", value, count))
  end
  file:close()
end
