//! Offline, read-only looks at what is on disk: dumps, verification, and the plan of a repair.
