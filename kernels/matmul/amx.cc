#include "kernels/matmul/amx.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#define LANEWISE_AMX 1
#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#define LANEWISE_AMX_CODE __attribute__((target("amx-tile,amx-bf16")))
#else
#define LANEWISE_AMX 0
#define LANEWISE_AMX_CODE
#endif

namespace lanewise::kernels::matmul {
namespace {

constexpr size_t kTileHeight = 16;  // rows of a tile register
constexpr size_t kTileBytes = 64;   // bytes of each
constexpr size_t kTileElements = kTileHeight * kTileBytes / sizeof(BFloat16);

// Registers: 0 to 3 are C (row tile * 2 + column tile), 4 and 5 A, 6 and 7 B.

// Tile registers in plain memory.
struct Emulated {
  struct Register {
    unsigned char bytes[kTileHeight][kTileBytes];
  };
  Register tile[8];

  template <int kTile>
  void Zero() {
    tile[kTile] = {};
  }
  template <int kTile>
  void Load(const void* data, size_t stride) {
    for (size_t r = 0; r < kTileHeight; ++r) {
      std::memcpy(tile[kTile].bytes[r], static_cast<const unsigned char*>(data) + r * stride,
                  kTileBytes);
    }
  }
  template <int kTile>
  void Store(void* data, size_t stride) const {
    for (size_t r = 0; r < kTileHeight; ++r) {
      std::memcpy(static_cast<unsigned char*>(data) + r * stride, tile[kTile].bytes[r], kTileBytes);
    }
  }
  // c[r, j] += a[r, 2p] * b[p, 2j] + a[r, 2p + 1] * b[p, 2j + 1] for every pair p.
  template <int kC, int kA, int kB>
  void MultiplyAdd() {
    for (size_t r = 0; r < kTileHeight; ++r) {
      float c[kTileBytes / 4];
      std::memcpy(c, tile[kC].bytes[r], kTileBytes);
      for (size_t p = 0; p < kTileBytes / 4; ++p) {
        for (size_t half = 0; half < 2; ++half) {
          const float a = Element(kA, r, 2 * p + half);
          for (size_t j = 0; j < kTileBytes / 4; ++j) c[j] += a * Element(kB, p, 2 * j + half);
        }
      }
      std::memcpy(tile[kC].bytes[r], c, kTileBytes);
    }
  }
  float Element(int which, size_t row, size_t column) const {
    uint16_t bits;
    std::memcpy(&bits, tile[which].bytes[row] + 2 * column, 2);
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

#if LANEWISE_AMX
// The intrinsics want literal register numbers, and GCC's do not say that they use memory: see
// MemoryIsUsed.
#define LW_AMX_REGISTERS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
struct Hardware {
  template <int kTile>
  LANEWISE_AMX_CODE void Zero() {
#define LW_AMX_ZERO(n) \
  if constexpr (kTile == n) _tile_zero(n);
    LW_AMX_REGISTERS(LW_AMX_ZERO)
#undef LW_AMX_ZERO
  }
  template <int kTile>
  LANEWISE_AMX_CODE void Load(const void* data, size_t stride) {
#define LW_AMX_LOAD(n) \
  if constexpr (kTile == n) _tile_loadd(n, data, stride);
    LW_AMX_REGISTERS(LW_AMX_LOAD)
#undef LW_AMX_LOAD
  }
  template <int kTile>
  LANEWISE_AMX_CODE void Store(void* data, size_t stride) const {
#define LW_AMX_STORE(n) \
  if constexpr (kTile == n) _tile_stored(n, data, stride);
    LW_AMX_REGISTERS(LW_AMX_STORE)
#undef LW_AMX_STORE
  }
  template <int kC, int kA, int kB>
  LANEWISE_AMX_CODE void MultiplyAdd() {
    static_assert(kA == 4 + kC / 2 && kB == 6 + kC % 2);
    if constexpr (kC == 0) _tile_dpbf16ps(0, 4, 6);
    if constexpr (kC == 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kC == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kC == 3) _tile_dpbf16ps(3, 5, 7);
  }
};
#undef LW_AMX_REGISTERS
#endif

// What was stored before is in memory, and what is read afterwards comes from there.
inline void MemoryIsUsed() {
#if LANEWISE_AMX
  __asm__ volatile("" : : : "memory");
#endif
}

// The sums of up to 2 x 2 registers, from `add` (when there is one) into `c`, both [32, 32].
template <bool kTwoRows, bool kTwoColumns, typename Unit>
LANEWISE_AMX_CODE void Product(Unit& unit, const Bf16Tile& t, const float* add, size_t add_row,
                               float* c, size_t c_row) {
  MemoryIsUsed();
  if (add == nullptr) {
    unit.template Zero<0>();
    unit.template Zero<1>();
    unit.template Zero<2>();
    unit.template Zero<3>();
  } else {
    const size_t bytes = add_row * sizeof(float);
    const float* below = add + kTileHeight * add_row;
    unit.template Load<0>(add, bytes);
    if constexpr (kTwoColumns) unit.template Load<1>(add + kAmxPanelColumns, bytes);
    if constexpr (kTwoRows) unit.template Load<2>(below, bytes);
    if constexpr (kTwoRows && kTwoColumns) unit.template Load<3>(below + kAmxPanelColumns, bytes);
  }
  const BFloat16* a = t.a;
  const BFloat16* b = t.b;
  const size_t a_bytes = t.a_row * sizeof(BFloat16);
  for (size_t k = 0; k < t.k; k += kBf16Steps, a += kBf16Steps, b += kTileElements) {
    FetchBetween(t, k);
    unit.template Load<4>(a, a_bytes);
    unit.template Load<6>(b, kTileBytes);
    unit.template MultiplyAdd<0, 4, 6>();
    if constexpr (kTwoColumns) {
      unit.template Load<7>(b + t.panel, kTileBytes);
      unit.template MultiplyAdd<1, 4, 7>();
    }
    if constexpr (kTwoRows) {
      unit.template Load<5>(a + kTileHeight * t.a_row, a_bytes);
      unit.template MultiplyAdd<2, 5, 6>();
      if constexpr (kTwoColumns) unit.template MultiplyAdd<3, 5, 7>();
    }
  }
  const size_t bytes = c_row * sizeof(float);
  float* below = c + kTileHeight * c_row;
  unit.template Store<0>(c, bytes);
  if constexpr (kTwoColumns) unit.template Store<1>(c + kAmxPanelColumns, bytes);
  if constexpr (kTwoRows) unit.template Store<2>(below, bytes);
  if constexpr (kTwoRows && kTwoColumns) unit.template Store<3>(below + kAmxPanelColumns, bytes);
  MemoryIsUsed();
}

template <typename Unit>
LANEWISE_AMX_CODE void Products(Unit& unit, const Bf16Tile& t, const float* add, size_t add_row,
                                float* c, size_t c_row) {
  const bool two_columns = t.columns > kAmxPanelColumns;
  if (t.rows > kTileHeight) {
    two_columns ? Product<true, true>(unit, t, add, add_row, c, c_row)
                : Product<true, false>(unit, t, add, add_row, c, c_row);
  } else {
    two_columns ? Product<false, true>(unit, t, add, add_row, c, c_row)
                : Product<false, false>(unit, t, add, add_row, c, c_row);
  }
}

// Tile registers are loaded and stored whole: at the edges of C, by way of a buffer.
template <typename Unit>
LANEWISE_AMX_CODE void RunTile(Unit& unit, const Bf16Tile& t) {
  if (t.rows == kAmxRows && t.columns == kAmxColumns) {
    Products(unit, t, t.add, t.add_row, t.c, t.c_row);
    return;
  }
  alignas(64) float buffer[kAmxRows * kAmxColumns] = {};
  if (t.add != nullptr) {
    for (size_t r = 0; r < t.rows; ++r) {
      std::copy_n(t.add + r * t.add_row, t.columns, buffer + r * kAmxColumns);
    }
  }
  Products(unit, t, t.add == nullptr ? nullptr : buffer, kAmxColumns, buffer, kAmxColumns);
  for (size_t r = 0; r < t.rows; ++r) {
    std::copy_n(buffer + r * kAmxColumns, t.columns, t.c + r * t.c_row);
  }
}

#if LANEWISE_AMX
// Extended control register 0: which state the operating system saves.
uint64_t EnabledState() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool AskForAmx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kXsaveOn = 1U << 27;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kXsaveOn) == 0) return false;
  constexpr unsigned kAmxBf16 = 1U << 22;
  constexpr unsigned kAmxTile = 1U << 24;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  constexpr uint64_t kTileState = (uint64_t{1} << 17) | (uint64_t{1} << 18);
  if ((EnabledState() & kTileState) != kTileState) return false;
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return false;
#endif
  return true;
}
#endif

}  // namespace

bool HasAmx() {
#if LANEWISE_AMX
  static const bool has = AskForAmx();
  return has;
#else
  return false;
#endif
}

#if LANEWISE_AMX
LANEWISE_AMX_CODE void EnterAmx() {
  // Palette 1: eight registers of 16 rows of 64 bytes.
  struct alignas(64) Config {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t bytes_per_row[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (size_t i = 0; i < 8; ++i) {
    config.bytes_per_row[i] = kTileBytes;
    config.rows[i] = kTileHeight;
  }
  __asm__ volatile("" : : "r"(&config) : "memory");  // as MemoryIsUsed, for a local variable
  _tile_loadconfig(&config);
}
LANEWISE_AMX_CODE void LeaveAmx() { _tile_release(); }

LANEWISE_AMX_CODE void RunAmxTile(const Bf16Tile& tile) {
  Hardware unit;
  RunTile(unit, tile);
}

LANEWISE_AMX_CODE double RunAmxProbe(size_t iterations) {
  if (!HasAmx()) return 0.0;
  EnterAmx();
  for (size_t i = 0; i < iterations; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  LeaveAmx();
  return 4.0 * 16 * 16 * 32 * 2 * static_cast<double>(iterations);
}
#else
void EnterAmx() {}
void LeaveAmx() {}
void RunAmxTile(const Bf16Tile& tile) { RunEmulatedAmxTile(tile); }
double RunAmxProbe(size_t) { return 0.0; }
#endif

void RunEmulatedAmxTile(const Bf16Tile& tile) {
  Emulated unit;
  RunTile(unit, tile);
}

}  // namespace lanewise::kernels::matmul
