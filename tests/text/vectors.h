#pragma once
// llama.cpp's tokenizer vectors: 47 inputs, and for each tokenizer a line of ids for each of them.
#include <gtest/gtest.h>

#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "text/shared_data.h"
#include "text/tokenizer.h"

namespace hesper {

inline std::vector<std::string> vector_inputs() {
  const std::string text = read_file(shared_data("vectors/ggml-vocab.inp"));
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) break;
    begin = end + separator.size();
  }
  return parts;
}

inline void expect_vectors(const Tokenizer& tokenizer, const std::string& outputs, bool with_bos) {
  const std::vector<std::string> texts = vector_inputs();
  ASSERT_EQ(texts.size(), 47u);
  std::istringstream lines(read_file(shared_data(outputs)));
  for (size_t n = 0; n < texts.size(); ++n) {
    std::string line;  // one a text; the last text is empty, and so may its line be
    ASSERT_TRUE(std::getline(lines, line) || (n == 46 && texts[n].empty()));
    std::istringstream numbers(line);
    const std::vector<int32_t> expected{std::istream_iterator<int32_t>(numbers), {}};
    std::vector<int32_t> ids = tokenizer.encode(texts[n]);
    if (with_bos) ids.insert(ids.begin(), tokenizer.bos().value());
    EXPECT_EQ(ids, expected) << "input " << n << ": " << texts[n];
  }
  std::string rest;
  EXPECT_FALSE(std::getline(lines, rest)) << rest;
}

}  // namespace hesper
