#include "model/build_program.h"

#include "model/tensor_names.h"

namespace hesper {

Program build_program(const ModelConfig& config, int64_t seqlen, at::Device device) {
  std::vector<std::string> names;
  for (const ParameterSpec& spec : parameter_table(config)) names.push_back(spec.name);
  Program program(std::move(names), device);
  switch (config.family) {
    case Family::opt:
      write_opt(program, config);
      break;
    case Family::llama:
      write_llama(program, config, seqlen);
      break;
  }
  return program;
}

}  // namespace hesper
