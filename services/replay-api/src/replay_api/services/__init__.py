"""The rules: what is accepted, sampled, published and kept. Knows neither HTTP nor any driver."""
