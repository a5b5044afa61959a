// Counts a program's calls of operator new, and lets one of them fail.
#ifndef LANEWISE_TESTS_SUPPORT_COUNTING_NEW_H_
#define LANEWISE_TESTS_SUPPORT_COUNTING_NEW_H_

#include <cstddef>

namespace lanewise::testing {

// Calls so far, on all threads. Linking this replaces the program's operator new.
size_t AllocationCount();

// Of these, those that have not been deleted.
size_t LiveAllocations();

// The k-th call from now on (1 is the next) throws std::bad_alloc, whichever thread makes it; 0 switches off. Where the
// JSON library makes that call, the next one of others fails.
void FailAllocationAfter(size_t k);

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_COUNTING_NEW_H_
