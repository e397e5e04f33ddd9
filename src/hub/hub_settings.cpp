#include "hub/hub_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <stdexcept>

#include "files/read_file.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

fs::path home() {
  const std::string home = variable("HOME");
  return home.empty() ? "." : home;
}

// "~" and "~/..." as a shell reads them.
fs::path folder_of(const std::string& text) {
  if (text == "~") return home();
  return text.starts_with("~/") ? home() / text.substr(2) : fs::path(text);
}

bool is_true(std::string text) {
  for (char& c : text)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return text == "1" || text == "ON" || text == "YES" || text == "TRUE";
}

// A token goes into a header line: blanks around it are cut, and nothing but visible ASCII is let through.
std::string checked_token(std::string token, const std::string& source) {
  token.erase(0, std::min(token.find_first_not_of(" \t\r\n"), token.size()));
  token.erase(token.find_last_not_of(" \t\r\n") + 1);
  if (!std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 0x7F; })) {
    throw std::invalid_argument(fmt::format("{}: the token holds blanks or characters that are not ASCII", source));
  }
  return token;
}

}  // namespace

HubSettings hub_settings_from_environment() {
  HubSettings settings;
  if (std::string endpoint = variable("HF_ENDPOINT"); !endpoint.empty()) {
    while (endpoint.ends_with('/')) endpoint.pop_back();
    if (!endpoint.starts_with("https://") && !endpoint.starts_with("http://")) {
      throw std::invalid_argument(fmt::format("HF_ENDPOINT={}: a URL of https or http is needed", endpoint));
    }
    settings.endpoint = endpoint;
  }
  const std::string xdg = variable("XDG_CACHE_HOME"), hf_home = variable("HF_HOME"), cache = variable("HF_HUB_CACHE");
  const fs::path caches = xdg.empty() ? home() / ".cache" : fs::path(xdg);
  const fs::path base = hf_home.empty() ? caches / "huggingface" : folder_of(hf_home);
  settings.cache = cache.empty() ? base / "hub" : folder_of(cache);

  settings.token = checked_token(variable("HF_TOKEN"), "HF_TOKEN");
  settings.token_source = "HF_TOKEN";
  if (settings.token.empty()) {
    const std::string named = variable("HF_TOKEN_PATH");
    const fs::path file = named.empty() ? base / "token" : folder_of(named);
    settings.token_source = file.string();
    if (fs::is_regular_file(file)) settings.token = checked_token(read_file(file, 1 << 16), file.string());
  }

  settings.offline = is_true(variable("HF_HUB_OFFLINE"));
  if (const std::string text = variable("HF_HUB_DOWNLOAD_TIMEOUT"); !text.empty()) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), settings.timeout);
    if (error != std::errc() || end != text.data() + text.size() || settings.timeout < 1 || settings.timeout > 86400) {
      throw std::invalid_argument(
          fmt::format("HF_HUB_DOWNLOAD_TIMEOUT={}: a whole number of seconds from 1 to 86400 is needed", text));
    }
  }
  return settings;
}

}  // namespace hesper
