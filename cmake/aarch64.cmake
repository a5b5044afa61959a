# Toolchain: 64-bit Arm on Linux, with Debian's cross compiler; CTest runs what it makes under QEMU's
# user-mode emulation. QEMU_CPU names the CPU to emulate. `./dev aarch64` installs all of it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
