//! Model tests, end-to-end tests in network namespaces, fuzz targets, tidy.
#![forbid(unsafe_code)]
