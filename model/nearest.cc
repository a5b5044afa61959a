#include "model/nearest.h"

#include <algorithm>
#include <cstddef>

namespace lanewise::model {
namespace {

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool Same(char a, char b) { return Lower(a) == Lower(b); }

bool BeginsWith(std::string_view text, std::string_view prefix) {
  return !prefix.empty() && text.size() > prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), text.begin(), Same);
}

// Optimal string alignment distance, with three rows of the table.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t wrong = Same(a[i - 1], b[j - 1]) ? 0 : 1;
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + wrong});
      if (i > 1 && j > 1 && Same(a[i - 1], b[j - 2]) && Same(a[i - 2], b[j - 1])) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before.swap(above);
    above.swap(row);
  }
  return above[b.size()];
}

}  // namespace

std::string NearestName(std::string_view word, const std::vector<std::string>& candidates) {
  constexpr size_t kLongest = 100;  // nobody mistypes more
  const std::string* nearest = nullptr;
  size_t fewest = word.size() / 2 + 1;
  if (word.empty() || word.size() > kLongest) return {};
  for (const std::string& candidate : candidates) {
    size_t errors = Distance(word, candidate);
    if (BeginsWith(candidate, word)) errors = std::min<size_t>(errors, 1);
    if (errors < fewest) {
      fewest = errors;
      nearest = &candidate;
    }
  }
  return nearest == nullptr ? std::string() : *nearest;
}

std::string UnknownName(std::string_view what, std::string_view word,
                        const std::vector<std::string>& candidates) {
  std::string message = "there is no ";
  message.append(what).append(" \"").append(word).append("\"");
  const std::string nearest = NearestName(word, candidates);
  message += nearest.empty() ? "; it can be " : ": did you mean \"" + nearest + "\"? (";
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (i > 0) message += ", ";
    message += candidates[i];
  }
  if (!nearest.empty()) message += ")";
  return message;
}

}  // namespace lanewise::model
