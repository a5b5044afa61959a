// Counts a program's calls of operator new, and lets some of them fail.
#ifndef LANEWISE_TESTS_SUPPORT_COUNTING_NEW_H_
#define LANEWISE_TESTS_SUPPORT_COUNTING_NEW_H_

#include <cstddef>

namespace lanewise::testing {

// Calls so far, on all threads. Linking this replaces the program's operator new.
size_t AllocationCount();

// Is asked at every call from now on whether it shall throw std::bad_alloc; nullptr switches off.
// What it allocates itself is not asked about.
using RefuseAllocation = bool (*)();
void SetRefuseAllocation(RefuseAllocation refuse);

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_COUNTING_NEW_H_
