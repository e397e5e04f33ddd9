#pragma once
// A model as a straight line of ops over values: what a family's list of calls writes down and every pass walks.
// A value is (rows of tokens, width). Runs of token-local ops between two attentions form a segment, which tangent
// passes execute a run of tokens at a time.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ops/activation.h"
#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/op.h"
#include "ops/wiring.h"

namespace hesper {

struct ModelConfig;
struct RotaryAngles;

/// Ops [begin, end) of the program: token-local ones, or a single attention.
struct Segment {
  int begin, end;
  bool token_local;
  std::vector<int> inputs;   // values made outside and read here
  std::vector<int> outputs;  // values made here and read later (by an op or the head)
  std::vector<int> last;     // inputs that no later segment reads
  at::Device device = at::kCPU;
};

class Program {
 public:
  /// Number of each parameter, in the order of parameter_table(config).
  explicit Program(std::vector<std::string> parameter_names);

  // The calls a family is written with. Names are the checkpoint's; a missing "NAME.bias" is allowed where said.
  int token_embedding(const std::string& table);
  int position_embedding(const std::string& table, int64_t offset);
  // layer.weight, and layer.bias where the table has it
  int linear(int x, const std::string& layer, Linear::Stored stored = Linear::Stored::out_in);
  int layer_norm(int x, const std::string& layer, double eps);
  // Of each of `heads` runs of channels; without a layer, no gain.
  int rms_norm(int x, const std::string& layer, double eps, int64_t heads = 1, double gain_offset = 0);
  int activation(int x, Phi phi);
  int gated_activation(int a, int u, Phi phi);
  int add(int a, int b);
  int scale(int x, const std::vector<double>& factors);            // one, or one for each position
  int channels(int x, int64_t width, int64_t begin, int64_t end);  // of each run of `width`
  int rotary(int x, const RotaryAngles& angles, int64_t tokens, int64_t head_dim,
             Rotary::Pairs pairs = Rotary::Pairs::halves);
  // The token scaled by the score of the expert that its slot-th largest logit chooses, and that expert's layer.
  int expert_input(int h, int logits, int64_t experts, int64_t slot);
  int expert_linear(int x, int logits, const std::vector<std::string>& layers, int64_t slot);
  int attention(int q, int k, int v, AttentionShape shape);
  void head(int x, const std::string& table, double softcap = 0);  // closes the program

  /// Deals the segments to devices, in their order: each is given parameters of about the same number of entries
  /// (sizes: by parameter). A token-local segment stays with the attention that follows it, an embedding with the first
  /// device, the head with the last. Of a closed program.
  void place(at::ArrayRef<at::Device> devices, const std::vector<int64_t>& sizes, bool absent);

  const std::vector<std::unique_ptr<Op>>& ops() const { return ops_; }
  const CrossEntropyHead& cross_entropy() const { return *head_; }
  const std::vector<Segment>& segments() const { return segments_; }
  int values() const { return values_; }
  std::vector<at::Device> devices() const;  // each once, in the order of the segments
  at::Device head_device() const { return segments_.back().device; }
  /// Of each parameter: of the last op that multiplies by it.
  std::vector<at::Device> parameter_devices() const;
  const std::vector<std::string>& parameter_names() const { return names_; }
  /// Parameter number; -1 where the model has none of that name.
  int parameter(const std::string& name) const;

 private:
  template <class T, class... Args>
  int append(Args&&... args);
  int required(const std::string& name) const;
  void cut_segments();

  std::vector<std::string> names_;
  std::map<std::string, int> numbers_;
  std::vector<std::unique_ptr<Op>> ops_;
  std::unique_ptr<CrossEntropyHead> head_;
  std::vector<Segment> segments_;
  int values_ = 0;
};

}  // namespace hesper
