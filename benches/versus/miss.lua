-- Asks for each URL once; the argument keeps runs apart.
local run, count = "", 0

function init(arguments)
  run = arguments[1]
end

function request()
  count = count + 1
  return wrk.format("GET", "/miss/" .. run .. "/" .. count)
end
