# Toolchain: Windows on x86-64, with clang and Debian's MinGW-w64; CTest runs what it makes under Wine.
# Not with MinGW's GCC: it stores vectors of AVX on a stack that Windows does not align for them (GCC
# bug 54412). `./dev windows` installs all of it, and puts the libraries into build/_deps/windows.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_C_COMPILER clang-19)  # Highway's project asks for one
set(CMAKE_CXX_COMPILER clang++-19)
set(CMAKE_C_COMPILER_TARGET x86_64-w64-mingw32)
set(CMAKE_CXX_COMPILER_TARGET x86_64-w64-mingw32)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
# The thread-local variables of MinGW's libstdc++ are emulated ones. MinGW 10 and clang both define
# __cpuidex: MinGW is told that it has done so. Its headers include some that clang warns of.
set(CMAKE_CXX_FLAGS_INIT "-femulated-tls -D__INTRINSIC_DEFINED___cpuidex -Wno-#warnings")
# Static: a program runs wherever it is copied to. oneTBB wants libssp.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-fuse-ld=lld-19 -static -pthread -lssp")
set(CMAKE_CROSSCOMPILING_EMULATOR wine)

set(CMAKE_FIND_ROOT_PATH ${CMAKE_CURRENT_LIST_DIR}/../build/_deps/windows)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
foreach(kind LIBRARY INCLUDE PACKAGE)
  set(CMAKE_FIND_ROOT_PATH_MODE_${kind} ONLY)
endforeach()
