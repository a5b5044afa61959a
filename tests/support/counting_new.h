// How often this program has called operator new.
#ifndef LANEWISE_TESTS_SUPPORT_COUNTING_NEW_H_
#define LANEWISE_TESTS_SUPPORT_COUNTING_NEW_H_

#include <cstddef>

namespace lanewise::testing {

// Calls so far, on all threads. Linking this replaces the program's operator new.
size_t AllocationCount();

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_COUNTING_NEW_H_
