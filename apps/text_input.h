// --data and --token-ids: what eval and gradients read.
#ifndef LANEWISE_APPS_TEXT_INPUT_H_
#define LANEWISE_APPS_TEXT_INPUT_H_

#include <functional>
#include <string>
#include <vector>

#include "apps/options.h"
#include "model/data.h"
#include "model/loaded_model.h"

namespace lanewise::apps {

// For who reads a text: shows how far it is after a second, from when on a signal ends it
// (Stopped).
std::function<void(double done)> ReadingProgress();

inline constexpr const char* kModelHelp =
    "run folder, checkpoint folder, .safetensors file, lrnnC01/02 or llama2.c file";

class TextInput {
 public:
  void Declare(Options& options);
  // UsageError unless exactly one of the two was given.
  void Check(const Options& options) const;
  // InputError below two tokens, which predict nothing.
  model::TokenArray Read(model::FileSystem& files, const model::LoadedModel& loaded) const;
  bool from_ids() const { return !ids_.empty(); }

 private:
  std::vector<std::string> data_;
  std::string ids_;
};

}  // namespace lanewise::apps

#endif  // LANEWISE_APPS_TEXT_INPUT_H_
