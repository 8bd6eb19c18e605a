# The least that works: a guardian that watches every service of one cluster, says what it would do, and changes nothing.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 7.0"
    }
  }
}

# Region and credentials come from the usual AWS environment.
provider "aws" {}

variable "cluster" {
  description = "Name of the ECS cluster to watch."
  type        = string
}

variable "image" {
  description = "The guardian's image, by tag or digest."
  type        = string
}

variable "vpc_id" {
  description = "The VPC for the guardian."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of it, with a way to the AWS APIs."
  type        = list(string)
}

module "guardian" {
  source = "../../modules/guardian"

  clusters     = [var.cluster]
  rules        = { "default.toml" = file("${path.module}/../../../rules/default.toml") }
  observe_only = true

  image      = var.image
  vpc_id     = var.vpc_id
  subnet_ids = var.subnet_ids
}

output "guardian" {
  description = "Queue, roles, topic and all else that the module tells."
  value       = module.guardian
}
