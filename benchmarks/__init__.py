"""What the guard costs: a bare model against the same model under the base class, on a real tritonserver."""
