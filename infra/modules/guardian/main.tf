data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

data "aws_region" "this" {}

locals {
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  region    = data.aws_region.this.name

  # Each cell is a guardian of its own: its events, queue, journal, role and replicas. Without shards there is one.
  is_sharded = length(var.shards) > 0
  shards     = local.is_sharded ? var.shards : tomap({ all = var.services })
  cells = {
    for shard, services in local.shards : shard => {
      name     = local.is_sharded ? "${var.name}-${shard}" : var.name
      services = services
    }
  }

  cluster_arns = [for cluster in var.clusters : "arn:${local.partition}:ecs:${local.region}:${local.account}:cluster/${cluster}"]

  port = 9464

  tags = merge({ "taskset-guardian:installation" = var.name }, var.tags)
}
