#!/usr/bin/env bash
# Builds a Debian root for arm64 in FOLDER: Python, the runtimes, an sshd, and the qemu that runs them on another
# processor. Usage: build_root.sh FOLDER (PYTHON names the host's Python). Ends with 0 where the root is there, with 3 and a
# reason where this machine cannot build it.
#
# Packages and wheels are downloaded and unpacked, and none of their scripts runs: a second stage of debootstrap under
# emulation takes minutes, this takes seconds. What scripts would have written and an sshd needs is written below.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
constraints="$here/../../constraints.txt"
python="${PYTHON:-python3}"
folder="${1:?usage: build_root.sh FOLDER}"
packages=(base-files bash coreutils dash findutils grep gzip libc-bin libstdc++6 openssh-server procps python3
  sed tar usr-is-merged "qemu-user-static:$(dpkg --print-architecture 2>/dev/null || true)")
wheels=(ai-edge-litert flatbuffers numpy onnxruntime opencv-python-headless openvino pydantic rich typer)

cannot() {
  echo "no arm64 root: $*" >&2
  exit 3
}

for tool in apt-get dpkg-deb flock sha256sum; do
  command -v "$tool" >/dev/null || cannot "$tool is not there; it takes a Debian machine to build one"
done
mkdir -p "$(dirname "$folder")"
folder="$(cd "$(dirname "$folder")" && pwd)/$(basename "$folder")"
made_of="$(cat "$0" "$constraints" | sha256sum | cut -d' ' -f1)"
exec 9>"$folder.lock"
flock 9
[ "$(cat "$folder/.made-of" 2>/dev/null)" != "$made_of" ] || exit 0

# What an interrupted build has downloaded stays; what it has unpacked does not.
work="$folder.part"
root="$work/root"
rm -rf "$root"
mkdir -p "$root" "$work"/apt/{state,lists/partial,cache/archives/partial}
: >"$work/apt/status"

# apt with folders of its own: the machine's packages, lists and architectures stay what they are, its sources are read.
export APT_CONFIG="$work/apt.conf"
cat >"$APT_CONFIG" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; "$(dpkg --print-architecture)"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Dir::State "$work/apt/state";
Dir::State::lists "$work/apt/lists";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt/cache";
END
apt-get update -qq >&2 || cannot "apt's sources cannot be read for arm64 (see above)"
apt-get install -qq -y --download-only "${packages[@]}" >&2 || cannot "apt could not download packages (see above)"

archives="$work/apt/cache/archives"
for file in "$archives"/*.deb; do
  case "$file" in
    */qemu-user-static_*) dpkg-deb --fsys-tarfile "$file" | tar -x -C "$root" ./usr/bin/qemu-aarch64-static ;;
    *) dpkg-deb -x "$file" "$root" ;;
  esac
done

version="$(basename "$(readlink "$root/usr/bin/python3")")"
version="${version#python}"
site="$root/usr/local/lib/python$version/dist-packages"
mkdir -p "$site"
if "$python" -m uv --version >/dev/null 2>&1; then
  "$python" -m uv pip install --quiet --target "$site" -c "$constraints" --only-binary :all: \
    --python-version "$version" --python-platform aarch64-manylinux_2_36 "${wheels[@]}"
else
  "$python" -m pip install --quiet --target "$site" -c "$constraints" --only-binary :all: --no-compile \
    --python-version "$version" --platform manylinux_2_35_aarch64 --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 "${wheels[@]}"
fi
# Compiling is slow under emulation; a Python of the same version writes the same files here.
if "$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')"; then
  "$python" -m compileall -q -j 0 -s "$root" -x '/(tests?|lib2to3|idlelib)/' "$root/usr/lib/python$version" "$site" || true
fi

echo 'root:*:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
echo 'sshd:*:101:65534::/run/sshd:/usr/sbin/nologin' >>"$root/etc/passwd"
printf 'root:*:0:\nnogroup:*:65534:\n' >"$root/etc/group"
echo '127.0.0.1 localhost' >"$root/etc/hosts"

echo "$made_of" >"$root/.made-of"
rm -rf "$folder"
mv "$root" "$folder"
rm -rf "$work"
