#include "apps/command.h"

namespace lanewise::apps {

std::vector<std::unique_ptr<Command>> AllCommands() {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(MakeTrainCommand());
  commands.push_back(MakeGenerateCommand());
  commands.push_back(MakeEvalCommand());
  commands.push_back(MakePlanCommand());
  commands.push_back(MakeInfoCommand());
  commands.push_back(MakeConvertCommand());
  commands.push_back(MakeGradientsCommand());
  for (auto& command : MakeBenchModelCommands()) commands.push_back(std::move(command));
#ifdef LANEWISE_HAS_KERNEL_BENCHES
  commands.push_back(MakeBenchKernelsCommand());
#endif
  return commands;
}

}  // namespace lanewise::apps
