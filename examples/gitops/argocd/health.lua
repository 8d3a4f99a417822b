-- Argo CD's health of every kind of lethe.dev: one script, for all of them keep to kstatus.
--   Healthy      Ready; the message also tells what is not as it should be
--   Progressing  Lethe works at it, or will try again by itself
--   Suspended    a person's turn, or a legal hold's: nothing is wrong, and it may take months
--   Degraded     stalled: it does not go on until the manifest, or what it names, is corrected
local function health(status, message)
  return {status = status, message = message or ""}
end

local status = obj.status
if status == nil or status.conditions == nil then
  return health("Progressing", "not seen by Lethe yet")
end
local known = {}
for _, condition in ipairs(status.conditions) do
  known[condition.type] = condition
end
local ready = known.Ready
if ready == nil or ready.status == "Unknown" then
  return health("Progressing", ready and ready.message or "not seen by Lethe yet")
end
-- A status may lag behind its spec: what it says is of the manifest before.
if (status.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return health("Progressing", "Lethe has not seen the newest manifest yet")
end
if known.Stalled ~= nil and known.Stalled.status == "True" then
  return health("Degraded", known.Stalled.message)
end
if ready.status == "True" then
  local message = ready.message or ""
  -- Ready all the same; an alert tells when one of these lasts.
  for _, kind in ipairs({"SafeToServe", "RetentionEffective", "BackupsCovered", "MappingComplete", "StatisticsRenewed", "Journaled", "Permitted"}) do
    local further = known[kind]
    if further ~= nil and further.status ~= "True" then
      message = message .. "; " .. kind .. "=" .. further.status .. " (" .. further.reason .. "): " .. (further.message or "")
    end
  end
  return health("Healthy", message)
end
if known.Reconciling ~= nil and known.Reconciling.status == "True" then
  return health("Progressing", ready.message)
end
return health("Suspended", ready.message)
