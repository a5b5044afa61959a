// Limits of control groups, as files that a machine could have.
#include "runtime/container.h"

#include <doctest/doctest.h>

#include "tests/support/temporary_folder.h"

namespace lanewise::runtime {
namespace {

using lanewise::testing::TemporaryFolder;

TEST_CASE("no control groups, and groups without limits") {
  const TemporaryFolder root;
  CHECK_FALSE(ReadContainerLimits(root.path()).cores);
  root.Write("proc/self/cgroup", "0::/user/one\nnonsense\n\n");
  root.Write("sys/fs/cgroup/user/one/cpu.max", "max 100000\n");
  root.Write("sys/fs/cgroup/user/one/memory.max", "max\n");
  const ContainerLimits limits = ReadContainerLimits(root.path());
  CHECK_FALSE(limits.cores);
  CHECK_FALSE(limits.memory);
  CHECK_FALSE(limits.free_memory);
}

TEST_CASE("version 2: the lowest of a group and those above it") {
  const TemporaryFolder root;
  root.Write("proc/self/cgroup", "0::/pod/app\n");
  root.Write("sys/fs/cgroup/pod/cpu.max", "150000 100000\n");
  root.Write("sys/fs/cgroup/pod/app/cpu.max", "400000 100000\n");
  root.Write("sys/fs/cgroup/pod/memory.max", "8000\n");
  root.Write("sys/fs/cgroup/pod/memory.current", "6000\n");
  root.Write("sys/fs/cgroup/pod/memory.stat", "anon 1\nfile 2500\ninactive_file 2000\n");
  root.Write("sys/fs/cgroup/pod/app/memory.max", "5000\n");
  root.Write("sys/fs/cgroup/pod/app/memory.current", "100\n");
  const ContainerLimits limits = ReadContainerLimits(root.path());
  CHECK(limits.cores == 1.5);
  CHECK(limits.memory == 5000);
  CHECK(limits.free_memory == 4000);  // of the upper one's
}

TEST_CASE("version 1: the path outside, the group's files at the top") {
  const TemporaryFolder root;
  root.Write("proc/self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=x:/\n");
  root.Write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
  root.Write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  root.Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n");
  root.Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1200000\n");
  const ContainerLimits limits = ReadContainerLimits(root.path());
  CHECK(limits.cores == 2);
  CHECK(limits.memory == 1000000);
  CHECK(limits.free_memory == 0);
}

TEST_CASE("version 1 says that there is no limit by numbers") {
  const TemporaryFolder root;
  root.Write("proc/self/cgroup", "4:memory:/\n1:cpu:/\n");
  root.Write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  root.Write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  root.Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  const ContainerLimits limits = ReadContainerLimits(root.path());
  CHECK_FALSE(limits.cores);
  CHECK_FALSE(limits.memory);
}

}  // namespace
}  // namespace lanewise::runtime
