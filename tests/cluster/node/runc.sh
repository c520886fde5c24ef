#!/bin/sh
# Stands in front of runc where root lacks CAP_SYS_RESOURCE: asks for nothing that such a root
# may not give. Arguments are runc's own.
file='' previous=''
for argument in "$@"; do
    case $previous in
    --bundle | -b) file=$argument/config.json ;;
    --process | -p) file=$argument ;;
    esac
    previous=$argument
done
if [ -n "$file" ] && [ -f "$file" ]; then
    jq -c '
      def allowed: if . == null then . else map(select(. != "CAP_SYS_RESOURCE")) end;
      def clamped: if . == null then .
        else map(if .type == "RLIMIT_NOFILE"
          then .soft = ([.soft, 20000] | min) | .hard = ([.hard, 20000] | min) else . end) end;
      def eased: (if .capabilities then .capabilities |= map_values(allowed) else . end)
        | (if (.oomScoreAdj // 0) < 0 then .oomScoreAdj = 0 else . end)
        | (if .rlimits then .rlimits |= clamped else . end);
      if has("process") then .process |= eased else eased end
    ' "$file" >"$file.eased" && mv "$file.eased" "$file"
fi
exec runc "$@"
