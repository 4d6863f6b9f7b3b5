#!/bin/sh
# Runs the sshd of an arm64 root until standard input ends. Usage: start_sshd.sh ROOT FOLDER, where FOLDER/run holds its
# settings and keys, and takes what the device writes. It is the first process of its own mount and process namespaces: when
# it ends, the kernel ends all that runs in the root and takes the mounts away, however its caller ended.
set -eu
root="$1"
folder="$2"

mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/sys"
for device in full null random urandom zero; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
chmod 1777 "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
# The home folder and temporary files are this sshd's own, so that no test sees what another one has left.
mkdir -p "$folder/home" "$folder/run/sshd" "$folder/tmp"
chmod 1777 "$folder/tmp"
mount --bind "$folder/home" "$root/root"
mount --bind "$folder/run" "$root/run"
mount --bind "$folder/tmp" "$root/tmp"

# qemu shows programs this machine's processor where they read files about it. The runtimes choose their kernels by these:
# without them XNNPACK stays off in LiteRT, and OpenVINO crashes. What stands here is what Linux says of a Cortex-A76.
last="$(($(nproc) - 1))"
system="$root/sys/devices/system/cpu"
mkdir -p "$system"
echo "0-$last" | tee "$system/online" "$system/possible" >"$system/present"
features="fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
for cpu in $(seq 0 "$last"); do
  mkdir -p "$system/cpu$cpu/regs/identification" "$system/cpu$cpu/topology"
  echo 0x00000000414fd0b1 >"$system/cpu$cpu/regs/identification/midr_el1"
  echo "$cpu" >"$system/cpu$cpu/topology/core_id"
  echo 0 >"$system/cpu$cpu/topology/physical_package_id"
  printf '%x\n' $((1 << cpu)) | tee "$system/cpu$cpu/topology/core_cpus" >"$system/cpu$cpu/topology/thread_siblings"
  printf '%x\n' $(((2 << last) - 1)) | tee "$system/cpu$cpu/topology/package_cpus" >"$system/cpu$cpu/topology/core_siblings"
  printf 'processor\t: %d\nBogoMIPS\t: 100.00\nFeatures\t: %s\nCPU implementer\t: 0x41\n' "$cpu" "$features"
  printf 'CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n'
done >"$folder/cpuinfo"
mount --bind "$folder/cpuinfo" "$root/proc/cpuinfo"

# Where programs for arm64 do not run yet, the kernel is told of qemu. F opens it now, so that it is found in any root; P keeps
# argv[0]. Since Linux 6.7 the entry goes with the last mount of binfmt_misc, so every sshd holds one; before, it stays.
formats="$root/proc/sys/fs/binfmt_misc"
mount -t binfmt_misc binfmt_misc "$formats" || true
if ! chroot "$root" /bin/true 2>/dev/null; then
  header='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  # Another sshd that starts now may be first with it.
  printf '%s' ":edgedet-arm64:M::$header:$mask:$root/usr/bin/qemu-aarch64-static:FP" >"$formats/register" || true
  if ! chroot "$root" /bin/true; then
    echo "no arm64 root: the kernel cannot be told to run arm64 programs (binfmt_misc, see above)" >&2
    exit 3
  fi
fi

chroot "$root" /usr/sbin/sshd -D -e -f /run/sshd_config </dev/null &
read -r _ || true
