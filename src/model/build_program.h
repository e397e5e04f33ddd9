#pragma once
// Each family's list of calls: config -> the ops of the model in order.
#include "model/config.h"
#include "model/program.h"

namespace hesper {

/// The program of `config` for windows of `seqlen` tokens (rotary tables have that many rows). Parameter numbers follow
/// parameter_table(config). devices: those that will run it, a part of the blocks each; absent: for a plan, nothing is
/// sent to them.
Program build_program(const ModelConfig& config, int64_t seqlen,
                      at::ArrayRef<at::Device> devices = at::Device(at::kCPU), bool absent = false);

void write_opt(Program& program, const ModelConfig& config);
void write_gpt2(Program& program, const ModelConfig& config);
void write_gpt_neox(Program& program, const ModelConfig& config, int64_t seqlen);
void write_llama(Program& program, const ModelConfig& config, int64_t seqlen);
void write_gemma(Program& program, const ModelConfig& config, int64_t seqlen);
void write_llama4(Program& program, const ModelConfig& config, int64_t seqlen);

/// H, G, D, c, window and cap of a block.
AttentionShape attention_shape(const ModelConfig& config, int64_t block);

}  // namespace hesper
