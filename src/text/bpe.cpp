#include "text/bpe.h"

#include <fmt/format.h>

#include <queue>
#include <stdexcept>
#include <tuple>

#include "text/utf8.h"

namespace hesper {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(Vocabulary vocabulary, BpeOptions options) : vocabulary_(std::move(vocabulary)), options_(std::move(options)) {
  for (const auto& [token, id] : vocabulary_) {
    if (id < 0 || id >= kMaxTokenId) {
      throw std::runtime_error(fmt::format("token '{}' has id {}, outside 0..{}", token, id, kMaxTokenId - 1));
    }
  }
  if (options_.unk_token) {
    const auto id = find(*options_.unk_token);
    if (!id) throw std::runtime_error(fmt::format("unk_token '{}' is not in the vocabulary", *options_.unk_token));
    unk_id_ = *id;
  }
  if (options_.byte_fallback) {
    for (int byte = 0; byte < 256; ++byte) byte_ids_.push_back(find(fmt::format("<0x{:02X}>", byte)).value_or(-1));
  }
}

Bpe::Bpe(Vocabulary vocabulary, const std::vector<Pair>& merges, BpeOptions options)
    : Bpe(std::move(vocabulary), std::move(options)) {
  if (merges.size() >= static_cast<size_t>(kMaxTokenId)) {
    throw std::runtime_error(fmt::format("{} merges, more than {}", merges.size(), kMaxTokenId - 1));
  }
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string &left = merges[rank].first, &right = merges[rank].second;
    const auto part = [&](const std::string& token) {
      const auto id = find(token);
      if (!id) {
        throw std::runtime_error(fmt::format(
            "merge {} ('{}' '{}') needs the token '{}', which is not in the vocabulary", rank, left, right, token));
      }
      return *id;
    };
    const int32_t left_id = part(left), right_id = part(right);
    merges_[pair_key(left_id, right_id)] = {static_cast<int32_t>(rank), part(left + right)};
  }
}

Bpe Bpe::from_ranks(Vocabulary vocabulary, BpeOptions options) {
  Bpe bpe(std::move(vocabulary), std::move(options));
  for (const auto& [token, id] : bpe.vocabulary_) {
    for (size_t cut = utf8_length(token[0]); cut < token.size(); cut += utf8_length(token[cut])) {
      const auto left = bpe.find(std::string_view(token).substr(0, cut));
      const auto right = bpe.find(std::string_view(token).substr(cut));
      if (left && right) bpe.merges_[pair_key(*left, *right)] = {id, id};
    }
  }
  return bpe;
}

std::optional<int32_t> Bpe::find(std::string_view token) const {
  const auto found = vocabulary_.find(token);
  return found == vocabulary_.end() ? std::nullopt : std::optional(found->second);
}

const Bpe::Merge* Bpe::merge_of(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<Bpe::Symbol> Bpe::initial_symbols(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  const auto add = [&](int32_t id) {
    const auto n = static_cast<int64_t>(symbols.size());
    symbols.push_back({id, n - 1, n + 1, true});
  };
  bool unknown = false;  // an unk_token is due
  for (size_t i = 0, length = 0; i < word.size(); i += length) {
    length = std::min(utf8_length(word[i]), word.size() - i);
    const std::string_view character = word.substr(i, length);
    if (const auto id = find(character)) {
      if (std::exchange(unknown, false)) add(unk_id_);
      add(*id);
      continue;
    }
    if (options_.byte_fallback) {
      bool all = true;
      for (const char byte : character) all &= byte_ids_[static_cast<unsigned char>(byte)] >= 0;
      if (all) {
        for (const char byte : character) add(byte_ids_[static_cast<unsigned char>(byte)]);
        continue;
      }
    }
    if (unk_id_ < 0) continue;
    if (unknown && !options_.fuse_unk) add(unk_id_);
    unknown = true;
  }
  if (unknown) add(unk_id_);
  if (!symbols.empty()) symbols.back().next = -1;
  return symbols;
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (options_.ignore_merges) {
    if (const auto id = find(word)) return ids.push_back(*id);
  }
  std::vector<Symbol> symbols = initial_symbols(word);
  // (rank, position, product), smallest first; entries whose symbols have changed since are skipped.
  using Entry = std::tuple<int32_t, int64_t, int32_t>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  const auto at = [&](int64_t position) -> Symbol& { return symbols[static_cast<size_t>(position)]; };
  const auto consider = [&](int64_t position) {
    if (position < 0 || at(position).next < 0) return;
    if (const Merge* merge = merge_of(at(position).id, at(at(position).next).id)) {
      queue.emplace(merge->rank, position, merge->id);
    }
  };
  for (size_t i = 0; i < symbols.size(); ++i) consider(static_cast<int64_t>(i));
  while (!queue.empty()) {
    const auto [rank, position, id] = queue.top();
    queue.pop();
    Symbol& left = at(position);
    if (!left.alive || left.next < 0) continue;
    Symbol& right = at(left.next);
    const Merge* merge = merge_of(left.id, right.id);
    if (merge == nullptr || merge->id != id) continue;
    left.id = id;
    left.next = right.next;
    right.alive = false;
    if (left.next >= 0) at(left.next).previous = position;
    consider(left.previous);
    consider(position);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.alive) ids.push_back(symbol.id);
  }
}

}  // namespace hesper
