// Guessing which name a person meant.
#ifndef LANEWISE_MODEL_NEAREST_H_
#define LANEWISE_MODEL_NEAREST_H_

#include <string>
#include <string_view>
#include <vector>

namespace lanewise::model {

// The candidate with the fewest typing errors (a letter more, less, wrong, or two swapped; upper
// and lower case are the same), the first of several. A beginning of a name counts as one error.
// Empty where more than half of the word would be wrong.
std::string NearestName(std::string_view word, const std::vector<std::string>& candidates);

// `there is no schedule "cosin": did you mean "cosine"? (constant, linear, cosine, wsd)`
std::string UnknownName(std::string_view what, std::string_view word,
                        const std::vector<std::string>& candidates);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_NEAREST_H_
