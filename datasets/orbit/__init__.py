"""ORBIT: recognising the objects of one person from that person's videos (Massiceti et al., ICCV 2021)."""
