"""Ask people to decide over exactly this evidence, and record what they decided."""
