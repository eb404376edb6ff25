-- Asks for each URL once; the argument is a path that keeps runs apart.
local path, count = "", 0

function init(arguments)
  path = arguments[1] .. "/"
end

function request()
  count = count + 1
  return wrk.format("GET", path .. count)
end
