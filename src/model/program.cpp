#include "model/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <stdexcept>

#include "model/config.h"
#include "ops/experts.h"

namespace hesper {

Program::Program(std::vector<std::string> parameter_names) : names_(std::move(parameter_names)) {
  for (size_t i = 0; i < names_.size(); ++i) numbers_.emplace(names_[i], static_cast<int>(i));
}

int Program::parameter(const std::string& name) const {
  const auto it = numbers_.find(name);
  return it == numbers_.end() ? -1 : it->second;
}

int Program::required(const std::string& name) const {
  const int p = parameter(name);
  if (p < 0) throw std::invalid_argument(fmt::format("[program] the parameter table has no {}", name));
  return p;
}

template <class T, class... Args>
int Program::append(Args&&... args) {
  ops_.push_back(std::make_unique<T>(std::forward<Args>(args)...));
  ops_.back()->output = values_;
  return values_++;
}

int Program::token_embedding(const std::string& table) {
  return append<Embedding>(Embedding::By::token, required(table), 0);
}
int Program::position_embedding(const std::string& table, int64_t offset) {
  return append<Embedding>(Embedding::By::position, required(table), offset);
}
int Program::linear(int x, const std::string& layer, Linear::Stored stored) {
  return append<Linear>(x, required(layer + ".weight"), parameter(layer + ".bias"), stored);
}
int Program::layer_norm(int x, const std::string& layer, double eps) {
  return append<Norm>(Norm::Kind::layer, x, parameter(layer + ".weight"), parameter(layer + ".bias"), eps);
}
int Program::rms_norm(int x, const std::string& layer, double eps, int64_t heads, double gain_offset) {
  return append<Norm>(Norm::Kind::rms, x, layer.empty() ? -1 : required(layer + ".weight"), -1, eps, heads,
                      gain_offset);
}
int Program::activation(int x, Phi phi) { return append<Activation>(x, phi); }
int Program::gated_activation(int a, int u, Phi phi) { return append<GatedActivation>(a, u, phi); }
int Program::add(int a, int b) { return append<Add>(a, b); }
int Program::scale(int x, const std::vector<double>& factors) { return append<Scale>(x, factors); }
int Program::channels(int x, int64_t width, int64_t begin, int64_t end) {
  return append<Channels>(x, width, begin, end);
}
int Program::rotary(int x, const RotaryAngles& angles, int64_t tokens, int64_t head_dim, Rotary::Pairs pairs) {
  return append<Rotary>(x, angles.inverse_frequencies, tokens, head_dim, pairs, angles.factor);
}
int Program::expert_input(int h, int logits, int64_t experts, int64_t slot) {
  return append<ExpertInput>(h, logits, experts, slot);
}
int Program::expert_linear(int x, int logits, const std::vector<std::string>& layers, int64_t slot) {
  std::vector<int> weights;
  for (const std::string& layer : layers) weights.push_back(required(layer + ".weight"));
  return append<ExpertLinear>(x, logits, std::move(weights), slot);
}
int Program::attention(int q, int k, int v, AttentionShape shape) { return append<Attention>(q, k, v, shape); }

void Program::head(int x, const std::string& table, double softcap) {
  head_ = std::make_unique<CrossEntropyHead>(x, required(table), softcap);
  cut_segments();
}

void Program::place(at::ArrayRef<at::Device> devices, const std::vector<int64_t>& sizes, bool absent) {
  std::vector<double> size(segments_.size());
  for (size_t s = 0; s < segments_.size(); ++s)
    for (int i = segments_[s].begin; i < segments_[s].end; ++i)
      for (int p : ops_[i]->parameters)
        if (p >= 0 && !ops_[i]->inputs.empty()) size[s] += static_cast<double>(sizes[p]);
  size.back() += static_cast<double>(sizes[head_->table]);
  const double each = std::accumulate(size.begin(), size.end(), 0.0) / static_cast<double>(devices.size());
  double before = 0;  // of the segments that have been dealt
  size_t device = 0;
  for (size_t s = 0; s < segments_.size(); ++s) {
    const bool last = s + 1 == segments_.size();
    // The middle of the segment decides.
    if (segments_[s].token_local)
      device =
          last ? devices.size() - 1 : std::min(devices.size() - 1, static_cast<size_t>((before + size[s] / 2) / each));
    segments_[s].device = devices[device];
    for (int i = segments_[s].begin; i < segments_[s].end; ++i)
      absent ? ops_[i]->Op::place(devices[device]) : ops_[i]->place(devices[device]);
    before += size[s];
  }
}

std::vector<at::Device> Program::devices() const {
  std::vector<at::Device> out;
  for (const Segment& s : segments_)
    if (out.empty() || out.back() != s.device) out.push_back(s.device);
  return out;
}

std::vector<at::Device> Program::parameter_devices() const {
  std::vector<at::Device> out(names_.size(), segments_.front().device);
  for (const auto& op : ops_)
    for (int p : op->parameters)
      if (p >= 0) out[p] = op->device;
  out[head_->table] = head_device();
  return out;
}

void Program::cut_segments() {
  const int count = static_cast<int>(ops_.size());
  for (int i = 0; i < count;) {
    int end = i + 1;
    if (ops_[i]->token_local())
      while (end < count && ops_[end]->token_local()) ++end;
    segments_.push_back({i, end, ops_[i]->token_local(), {}, {}, {}});
    i = end;
  }
  if (segments_.empty() || !segments_.back().token_local)
    throw std::invalid_argument("[program] the head must follow a token-local op");
  std::vector<int> made_in(values_, -1), last_read(values_, -1);
  for (int s = 0; s < static_cast<int>(segments_.size()); ++s)
    for (int i = segments_[s].begin; i < segments_[s].end; ++i) {
      made_in[ops_[i]->output] = s;
      for (int x : ops_[i]->inputs) last_read[x] = s;
    }
  last_read[head_->input] = static_cast<int>(segments_.size()) - 1;  // the head runs with the last segment
  for (int s = 0; s < static_cast<int>(segments_.size()); ++s) {
    Segment& segment = segments_[s];
    std::set<int> inputs;
    for (int i = segment.begin; i < segment.end; ++i) {
      for (int x : ops_[i]->inputs)
        if (made_in[x] != s) inputs.insert(x);
      if (last_read[ops_[i]->output] > s) segment.outputs.push_back(ops_[i]->output);
    }
    segment.inputs.assign(inputs.begin(), inputs.end());
    for (int x : segment.inputs)
      if (last_read[x] == s) segment.last.push_back(x);
  }
}

}  // namespace hesper
