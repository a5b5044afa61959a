// Intel's tiles (AMX): C[32,32] from 2 x 2 tile registers. Highway has no tiles, so these are
// intrinsics, beside the same computation in software for machines without.
#ifndef LANEWISE_KERNELS_MATMUL_AMX_H_
#define LANEWISE_KERNELS_MATMUL_AMX_H_

#include <cstddef>

#include "kernels/matmul/bf16_tile.h"

namespace lanewise::kernels::matmul {

inline constexpr size_t kAmxRows = 32;
inline constexpr size_t kAmxColumns = 32;
inline constexpr size_t kAmxPanelColumns = 16;

// Whether the CPU has tiles for bf16 and the operating system lets this process use them. The first
// call asks for it.
bool HasAmx();

// Around tiles, on each thread: sets the tile registers up, and gives them back.
void EnterAmx();
void LeaveAmx();

// One tile of up to kAmxRows x kAmxColumns, between EnterAmx and LeaveAmx.
void RunAmxTile(const Bf16Tile& tile);
// The same in software, on any machine, without Enter and Leave.
void RunEmulatedAmxTile(const Bf16Tile& tile);

// Operations of `iterations` rounds of the four products of a tile, without memory; 0 without AMX.
double RunAmxProbe(size_t iterations);

}  // namespace lanewise::kernels::matmul

#endif  // LANEWISE_KERNELS_MATMUL_AMX_H_
