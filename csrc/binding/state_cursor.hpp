// Finds the state dict of each parameter in `optimizer.state`, without hashing: tensors hash by identity, in Python.
#pragma once

#include <Python.h>

#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace onepass {

// Walks the dict along with the parameters, which mostly stand there in the order of the groups. A parameter that is
// not the next one is looked up in a table of all entries, made when it is first needed. Borrows everything: no Python
// may run while one is in use.
class StateCursor {
 public:
  explicit StateCursor(PyObject* state) : state_(state) { advance(); }

  // The value of a parameter, borrowed, or null. One that is not `needed` is found only if it is the next one.
  PyObject* at(PyObject* parameter, bool needed) {
    if (key_ == parameter) {
      PyObject* const found = value_;
      advance();
      return found;
    }
    if (!needed || (key_ == nullptr && in_order_)) return nullptr;
    if (in_order_) make_table();
    Entry& entry = entry_of(parameter);
    entry.served = true;
    return entry.value;
  }

 private:
  struct Entry {
    PyObject* key;
    PyObject* value;
    bool served;
  };

  void advance() {
    do {
      if (!PyDict_Next(state_, &position_, &key_, &value_)) key_ = nullptr;
    } while (key_ != nullptr && !in_order_ && entry_of(key_).served);
  }

  void make_table() {
    in_order_ = false;
    const auto size = static_cast<size_t>(PyDict_GET_SIZE(state_));
    table_.assign(std::bit_ceil(2 * size + 1), Entry{});
    PyObject *key = nullptr, *value = nullptr;
    for (Py_ssize_t position = 0; PyDict_Next(state_, &position, &key, &value);) entry_of(key) = {key, value, false};
  }

  // That of the key, or a free one.
  Entry& entry_of(PyObject* key) {
    const size_t mask = table_.size() - 1;
    size_t place = (reinterpret_cast<uintptr_t>(key) >> 4) * 0x9E3779B97F4A7C15u >> 20;
    while (table_[place & mask].key != nullptr && table_[place & mask].key != key) ++place;
    return table_[place & mask];
  }

  PyObject* state_;
  Py_ssize_t position_ = 0;
  PyObject *key_ = nullptr, *value_ = nullptr;  // of the next entry
  bool in_order_ = true;                        // so far; there is a table where not
  std::vector<Entry> table_;
};

}  // namespace onepass
