# Calls NUMBER at PBX as user USER_NAME with USER_PASSWORD; ends with 0 if every call went well.
set -eu
: "${USER_PASSWORD:?set USER_PASSWORD to the password of the user that calls}"
USER_NAME=${USER_NAME:-1001}
PBX=${PBX:-127.0.0.1:5060}
NUMBER=${NUMBER:-*43}
scratch=$(mktemp -d)
printf 'SEQUENTIAL\n%s;[authentication username=%s password=%s];%s\n' \
  "$USER_NAME" "$USER_NAME" "$USER_PASSWORD" "$NUMBER" > "$scratch/users.csv"
# -auth_uri: left alone, SIPp signs another URI than the one that it calls.
exec sipp "$PBX" -i "${ADDRESS:-127.0.0.1}" -auth_uri "$NUMBER@$PBX" \
  -sf "$(dirname "$0")/call.xml" -inf "$scratch/users.csv" \
  -m "${CALLS:-3}" -r "${CALLS_PER_S:-1}" -timeout 60 -timeout_error -nostdin
