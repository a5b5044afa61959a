# A target of the parent project first, then packages of the system, else a pinned release. `./dev`
# installs or fetches what is missing. Settings are plain variables: a parent's cache stays its own.
include(FetchContent)
set(FETCHCONTENT_QUIET ON)
set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)  # option() and set(CACHE) of the releases below leave plain
set(CMAKE_POLICY_DEFAULT_CMP0126 NEW)  # variables as they are
set(CMAKE_POLICY_VERSION_MINIMUM 3.5)  # some releases below ask for versions that CMake 4 refuses
find_package(Threads REQUIRED)

# lanewise_make_available(NAME TARGET): after FetchContent_Declare(NAME).
macro(lanewise_make_available name target)
  if(NOT TARGET ${target})
    FetchContent_MakeAvailable(${name})
  endif()
endmacro()

# Highway >= 1.2. Where the system's is older, `./dev` leaves the source in build/_deps.
set(lanewise_highway_source ${PROJECT_SOURCE_DIR}/build/_deps/highway-src)
if(NOT FETCHCONTENT_SOURCE_DIR_HIGHWAY AND EXISTS ${lanewise_highway_source}/CMakeLists.txt)
  set(FETCHCONTENT_SOURCE_DIR_HIGHWAY ${lanewise_highway_source})
endif()
set(HWY_ENABLE_CONTRIB OFF)
set(HWY_ENABLE_EXAMPLES OFF)
set(HWY_ENABLE_TESTS OFF)
set(HWY_ENABLE_INSTALL ${LANEWISE_INSTALL})
set(HWY_FORCE_STATIC_LIBS ON)
FetchContent_Declare(
  highway SYSTEM
  URL https://github.com/google/highway/archive/refs/tags/1.2.0.tar.gz
  URL_HASH SHA256=7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343
  FIND_PACKAGE_ARGS 1.2 NAMES hwy)
if(NOT TARGET hwy)  # Highway's own name for it
  lanewise_make_available(highway hwy::hwy)
  if(TARGET hwy)
    # Built by default, used by nobody.
    set_target_properties(hwy_test hwy_list_targets PROPERTIES EXCLUDE_FROM_ALL ON)
  endif()
endif()
if(NOT TARGET hwy::hwy)
  add_library(hwy::hwy ALIAS hwy)
endif()

set(TBB_TEST OFF)
set(TBB_STRICT OFF)
set(TBBMALLOC_BUILD OFF)
set(TBB_INSTALL ${LANEWISE_INSTALL})
FetchContent_Declare(
  tbb SYSTEM
  URL https://github.com/oneapi-src/oneTBB/archive/refs/tags/v2021.13.0.tar.gz
  URL_HASH SHA256=3ad5dd08954b39d113dc5b3f8a8dc6dc1fd5250032b7c491eb07aed5c94133e1
  FIND_PACKAGE_ARGS NAMES TBB)
lanewise_make_available(tbb TBB::tbb)

set(JSON_BuildTests OFF)
set(JSON_Install ${LANEWISE_INSTALL})
FetchContent_Declare(
  nlohmann_json SYSTEM
  URL https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
  URL_HASH SHA256=d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d
  FIND_PACKAGE_ARGS 3.11)
lanewise_make_available(nlohmann_json nlohmann_json::nlohmann_json)

# xxHash is used as a header.
if(TARGET xxHash::xxhash)
  set(xxhash_include_dir $<TARGET_PROPERTY:xxHash::xxhash,INTERFACE_INCLUDE_DIRECTORIES>)
else()
  find_path(LANEWISE_XXHASH_INCLUDE_DIR xxhash.h)
  if(NOT LANEWISE_XXHASH_INCLUDE_DIR)
    FetchContent_Declare(
      xxhash
      URL https://github.com/Cyan4973/xxHash/archive/refs/tags/v0.8.2.tar.gz
      URL_HASH SHA256=baee0c6afd4f03165de7a4e67988d16f0f2b257b51d0e3cb91909302a26a79c4
      SOURCE_SUBDIR header-only)
    FetchContent_MakeAvailable(xxhash)
    set(LANEWISE_XXHASH_INCLUDE_DIR ${xxhash_SOURCE_DIR} CACHE PATH "Folder of xxhash.h" FORCE)
  endif()
  set(xxhash_include_dir ${LANEWISE_XXHASH_INCLUDE_DIR})
endif()
add_library(lanewise_xxhash INTERFACE)
target_include_directories(lanewise_xxhash SYSTEM INTERFACE ${xxhash_include_dir})
target_compile_definitions(lanewise_xxhash INTERFACE XXH_INLINE_ALL)

if(LANEWISE_BUILD_APPS)
  FetchContent_Declare(
    CLI11 SYSTEM
    URL https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.4.2.tar.gz
    URL_HASH SHA256=f2d893a65c3b1324c50d4e682c0cdc021dd0477ae2c048544f39eed6654b699a
    FIND_PACKAGE_ARGS 2.1)
  lanewise_make_available(CLI11 CLI11::CLI11)
endif()
if(LANEWISE_BUILD_TESTS)
  FetchContent_Declare(
    doctest SYSTEM
    URL https://github.com/doctest/doctest/archive/refs/tags/v2.4.11.tar.gz
    URL_HASH SHA256=632ed2c05a7f53fa961381497bf8069093f0d6628c5f26286161fbd32a560186
    FIND_PACKAGE_ARGS 2.4)
  lanewise_make_available(doctest doctest::doctest)
endif()
if(LANEWISE_BUILD_BENCH)
  set(BENCHMARK_ENABLE_TESTING OFF)
  set(BENCHMARK_ENABLE_INSTALL OFF)
  FetchContent_Declare(
    benchmark SYSTEM
    URL https://github.com/google/benchmark/archive/refs/tags/v1.8.3.tar.gz
    URL_HASH SHA256=6bc180a57d23d4d9515519f92b0c83d61b05b5bab188961f36ac7b06b0d9e9ce
    FIND_PACKAGE_ARGS)
  lanewise_make_available(benchmark benchmark::benchmark)
endif()
