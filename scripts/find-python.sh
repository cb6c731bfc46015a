#!/bin/sh
# Print the interpreter to build the environment with: the first of 3.11, 3.12, 3.10 that has venv, ensurepip and a
# shared libpython which really exists (the stub of the real tritonserver loads it).
#
# Usage: find-python.sh            choose one
#        find-python.sh PYTHON     check this one; a missing libpython is only noted, 3.13 is accepted
#        find-python.sh --all      one line per supported version that has venv and ensurepip
# Exit 2, one line on standard error and nothing on standard output when there is none. Downloads nothing.
set -u

# Prints: version, what is missing (comma-separated, or "nothing"), the interpreter itself.
probe='
import importlib.util, os, sys, sysconfig
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
missing = [m for m in ("venv", "ensurepip") if importlib.util.find_spec(m) is None]
folders = [sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib")]
if not any(folder and os.path.exists(os.path.join(folder, name)) for folder in folders):
    try:
        import ctypes
        ctypes.CDLL(name)
    except (ImportError, OSError):
        missing.append(name)
print("%d.%d" % sys.version_info[:2], ",".join(missing) or "nothing", sys.executable)
'

tell() {
    printf 'find-python: %s\n' "$1" >&2
}

# Every place where Python $1 may be: PATH first, then what pyenv has built.
candidates() {
    old_ifs=$IFS
    IFS=:
    for folder in $PATH; do
        printf '%s\n' "${folder:-.}/python$1"
    done
    for folder in $PATH; do
        printf '%s\n' "${folder:-.}/python3"
    done
    IFS=$old_ifs
    for file in "${HOME:-/nonexistent}"/.pyenv/versions/*/bin/python"$1"; do
        printf '%s\n' "$file"
    done
}

# The lines of the probe for each candidate of version $1. A shim that answers for another version is passed over.
probed() {
    candidates "$1" | while IFS= read -r file; do
        if [ ! -f "$file" ] || [ ! -x "$file" ]; then
            continue
        fi
        line=$("$file" -c "$probe" 2>/dev/null </dev/null) || continue
        case $line in
            "$1 "*) printf '%s\n' "$line" ;;
        esac
    done
}

apt_packages() {
    case ,$2, in
        *,venv,* | *,ensurepip,*) printf ' python%s-venv' "$1" ;;
    esac
    case ,$2, in
        *,libpython*) printf ' libpython%s' "$1" ;;
    esac
}

if [ "${1-}" = --all ]; then
    for version in 3.10 3.11 3.12 3.13; do
        probed "$version" | while read -r found missing file; do
            case ,$missing, in
                *,venv,* | *,ensurepip,*) continue ;;
            esac
            printf '%s %s\n' "$found" "$file"
            break
        done
    done
    exit 0
fi

if [ -n "${1-}" ]; then
    line=$("$1" -c "$probe" 2>/dev/null </dev/null) || line=
    if [ -z "$line" ]; then
        tell "PYTHON=$1 is no Python that runs"
        exit 2
    fi
    read -r version missing file <<EOF
$line
EOF
    case $version in
        3.10 | 3.11 | 3.12 | 3.13) ;;
        *)
            tell "PYTHON=$1 is Python $version; 3.10 to 3.13 are supported"
            exit 2
            ;;
    esac
    case ,$missing, in
        *,venv,* | *,ensurepip,*)
            tell "PYTHON=$1 lacks $missing; on Debian or Ubuntu: apt-get install$(apt_packages "$version" "$missing")"
            exit 2
            ;;
        *,libpython*) tell "note: PYTHON=$1 has no $missing, without which the real tritonserver cannot start" ;;
    esac
    printf '%s\n' "$file"
    exit 0
fi

near=
for version in 3.11 3.12 3.10; do
    lines=$(probed "$version")
    [ -n "$lines" ] || continue
    usable=$(printf '%s\n' "$lines" | sed -n 's/^[0-9.]* nothing //p' | sed -n 1p)
    if [ -n "$usable" ]; then
        printf '%s\n' "$usable"
        exit 0
    fi
    [ -n "$near" ] || near=$(printf '%s\n' "$lines" | sed -n 1p)
done

if [ -n "$near" ]; then
    read -r version missing file <<EOF
$near
EOF
    tell "$file lacks $missing; on Debian or Ubuntu: apt-get install$(apt_packages "$version" "$missing")"
else
    tell "no Python 3.11, 3.12 or 3.10 here; on Debian or Ubuntu: apt-get install python3 python3-venv libpython3-dev (or name one: PYTHON=/path/to/python3.11)"
fi
exit 2
