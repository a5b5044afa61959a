// The header that shows another library's.
#include "model/json.h"

#if defined(OWN_TARGETS) != defined(JSON_OF_THE_PARENT)
#error "the parent's target of nlohmann-json was not taken, or another one was"
#endif
