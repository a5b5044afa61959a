// Memory of a graph, decided before anything runs.
#ifndef LANEWISE_RUNTIME_PLAN_H_
#define LANEWISE_RUNTIME_PLAN_H_

#include <cstddef>
#include <vector>

#include "runtime/graph.h"

namespace lanewise::runtime {

// Offsets of every activation and workspace in one arena. Two buffers share memory only when no
// node needs both. Nodes without an effect (nothing reads what they write) are left out.
struct Plan {
  static constexpr size_t kNone = static_cast<size_t>(-1);

  std::vector<size_t> nodes;             // indices into graph.nodes(), in running order
  std::vector<size_t> tensor_offset;     // by tensor; bytes into the arena, kNone outside of it
  std::vector<size_t> workspace_offset;  // by position in `nodes`
  std::vector<size_t> workspace_bytes;
  size_t arena_bytes = 0;  // the known peak
  size_t workers = 0;      // as MakePlan was told: workspaces are large enough for so many
};

// `workers`: the largest number of workers that operations will get.
Plan MakePlan(const Graph& graph, size_t workers);

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_PLAN_H_
