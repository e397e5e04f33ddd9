#pragma once
// What the files of every result share: their record's configuration, and what it forbids to overwrite.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "hessian/selection_request.h"
#include "run/plan.h"

namespace hesper {

std::filesystem::path with_extension(const std::filesystem::path& base, const char* extension);

/// Hex; of the names and entries of the selected tensors.
std::string selection_sha256(const ResolvedSelection& selection);

/// "key old, now new" of the first key whose value differs; empty where both are equal. Both are objects.
std::string first_difference(const nlohmann::json& before, const nlohmann::json& now);

/// Throws std::invalid_argument where the record at `path` has another "configuration" than `now` (naming the first
/// difference) or is none. Nothing at `path`: fine.
void check_configuration(const std::filesystem::path& path, const nlohmann::json& now);

/// Makes the folder and writes a file into it for a moment. Throws std::runtime_error "cannot write FOLDER: reason".
void check_writable(const std::filesystem::path& folder);

/// Of a run's plan, for records.
nlohmann::json plan_json(const Plan& plan);

/// Writes JSON whole or not at all; bytes that are not UTF-8 become U+FFFD.
void write_json(const std::filesystem::path& path, const nlohmann::json& json);

}  // namespace hesper
